from tests.cloud import aws, stubs
from tests.e2e.conftest import undisturbed

__all__ = ["aws", "stubs", "undisturbed"]
