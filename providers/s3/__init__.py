"""S3, at Amazon or at anybody who speaks its protocol. The client library is imported when a provider is opened."""

from __future__ import annotations

from chatkeep.config.storages import S3Options
from chatkeep.providers import base
from chatkeep.providers.registry import Opening, ProviderType


def _open(opening: Opening) -> base.Provider:
    options: S3Options = opening.options
    try:
        from chatkeep.providers.s3.client import Settings
        from chatkeep.providers.s3.provider import S3Provider
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise base.ClientMissing(provider=opening.name, type="s3", package="boto3", extra="s3") from problem
    settings = Settings(
        bucket=options.bucket,
        prefix=options.prefix,
        region=options.region,
        endpoint=options.endpoint,
        style=options.style,
        profile=options.profile,
        credentials_file=options.credentials_file,
        storage_class=options.storage_class,
        retain=None if options.retain is None else float(options.retain),
    )
    return S3Provider(opening.name, settings, opening.memo)


TYPE = ProviderType(S3Options, _open)
