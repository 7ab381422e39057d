"""What is refused, which job runs next, and where; the only importer of Ray.

Ray reads some of its settings when it is imported, so they are set here, before any module of this
folder can import it.
"""

import os

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon Train notices that workers are done
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its own handler waits up to 15 s for trials; what they wrote is safe, so they are just ended.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # or trials of a custom searcher start one by one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Ray settings that keep its own output off and its scheduling prompt."""

os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
