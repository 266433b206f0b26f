"""The sessions of boto3 that clients of S3 are made from: quiet about what they sign, cheap, each with credentials of its own.

Here: what every client of S3 shares, whatever storage it talks to. Not here: addresses, keys, retries, certificates.
"""

from __future__ import annotations

import functools
import logging

import boto3
import botocore.session
from botocore.loaders import Loader

from dialog_assets import certificates

_TELLTALES = ("botocore.auth", "botocore.endpoint")
"""At DEBUG these write whole signed requests, and an API key is a part of the signature's header."""


def new_session() -> boto3.session.Session:
    """A session that reads credentials and addresses anew (boto3's common one keeps the credentials that it read first).

    From the first one on, signed requests stay out of the logs, also at DEBUG. Raises CertificatesUnusable.
    """
    trusted = certificates.bundle()
    for name in _TELLTALES:
        # A filter and not a level, because a level is set again by whoever configures logging.
        logging.getLogger(name).addFilter(_above_debug)
    session = botocore.session.get_session()
    session.register_component("data_loader", _descriptions())
    if trusted is not None:
        session.set_config_variable("ca_bundle", trusted)
    return boto3.session.Session(botocore_session=session)


@functools.cache
def _descriptions() -> Loader:
    """What keeps S3's description, once read: reading it takes five times as long as all the rest of making a client.

    Each session of boto3 adds its folder to the paths that are searched once more, which changes nothing.
    """
    loader: Loader = botocore.session.get_session().get_component("data_loader")
    return loader


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
