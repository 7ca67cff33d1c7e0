"""Transitions: each moves the states of an energy."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.transitions.own import Own as Own
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
