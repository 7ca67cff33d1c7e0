"""Who else hears how a run goes, beside metrics.jsonl, which stays the truth."""

from unibound.loggers.log import Log
from unibound.loggers.logger import Logger
from unibound.loggers.named import loggers_of

__all__ = ["Log", "Logger", "loggers_of"]
