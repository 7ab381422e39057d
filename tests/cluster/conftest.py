from tests.cloud import aws, stubs
from tests.e2e.conftest import free_port, undisturbed

__all__ = ["aws", "free_port", "stubs", "undisturbed"]
