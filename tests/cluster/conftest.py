from tests.cloud import aws, stubs

__all__ = ["aws", "stubs"]
