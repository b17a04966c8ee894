"""Every event that is logged: its name, which is stable and alerted on, its level, what it means, its fields and what to do.

A test holds the source against it, every line is held against it while tests run, and the operator's guide has a page made from it.
"""

from collections.abc import Mapping

from azaion_daemon.logs.event import Event, Level
from azaion_daemon.logs.events import daemon, dataset, ingest, publishing, stream, training

__all__ = ["AREAS", "CATALOGUE", "Event", "Level"]

AREAS: Mapping[str, Mapping[str, Event]] = {
    "The daemon": daemon.EVENTS,
    "The stream": stream.EVENTS,
    "Ingest": ingest.EVENTS,
    "Datasets and retention": dataset.EVENTS,
    "Training and the gate": training.EVENTS,
    "Publishing": publishing.EVENTS,
}
"""What is logged about each, in the order in which data moves."""

CATALOGUE: Mapping[str, Event] = {name: event for events in AREAS.values() for name, event in events.items()}
