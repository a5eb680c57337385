# SPDX-License-Identifier: Apache-2.0
"""What the node puts on the wire, read by another maker's DDS that has neither ROS nor our message classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from blobs import BLUE, INFO, RED, draw
from plain import plain
from probe import Probe, to_header

from instance_flow.formats.rle import from_run_lengths

pytest.importorskip("cyclonedds", reason='cyclonedds is not installed (pip install "instance-flow[dev]", x86 only)')

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from wire_types import ClassTable, TrackedInstanceArray

SECOND = 10**9

# Peers on this machine are asked one by one, as there is no multicast on the loopback interface; the index of a
# participant counts those of the whole domain.
CONFIGURATION = """
<CycloneDDS><Domain Id="any">
  <General>
    <Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
    <AllowMulticast>false</AllowMulticast>
  </General>
  <Discovery>
    <ParticipantIndex>auto</ParticipantIndex>
    <MaxAutoParticipantIndex>60</MaxAutoParticipantIndex>
    <Peers><Peer Address="127.0.0.1"/></Peers>
  </Discovery>
</Domain></CycloneDDS>
"""


@pytest.fixture(scope="module")
def node(start_for_all: Callable[..., Probe], blobs_model: Any) -> Probe:
    return start_for_all(model=blobs_model, provider="cpu").until_active()


@pytest.fixture(scope="module")
def participant() -> Iterator[DomainParticipant]:
    number = int(os.environ["ROS_DOMAIN_ID"])
    domain = Domain(number, CONFIGURATION)
    yield DomainParticipant(number)
    del domain  # Its participants end with it.


def subscribe(participant: Any, node: Probe, kind: Any, name: str, durability: Any = Policy.Durability.Volatile) -> Any:
    """Read a topic of the node, given by the name that ROS knows it by."""
    qos = Qos(
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.Reliability.Reliable(SECOND),
        Policy.History.KeepLast(10),
        durability,
    )
    topic = Topic(participant, f"rt{node.node.resolve_topic_name(f'instance_flow/{name}')}", kind)
    return DataReader(participant, topic, qos=qos)


def test_instances_are_read_as_they_were_sent(node: Probe, participant: Any) -> None:
    reader = subscribe(participant, node, TrackedInstanceArray, "instances")
    image = draw([(30, 40, RED), (90, 50, BLUE)])
    heard: list[Any] = []
    stamps = iter(range(1, 10**6))

    def both_heard() -> Any:
        answer = node.ask(image, next(stamps) * SECOND // 10)
        heard.extend(reader.take(N=10))
        return next((sample for sample in heard if stamp_of(sample) == stamp_of(answer)), None)

    sample = node.until(both_heard, "an answer at Cyclone DDS")
    answer = next(answer for answer in node.answers if stamp_of(answer) == stamp_of(sample))
    assert plain(sample) == plain(answer)
    assert sample.header.frame_id == to_header(0).frame_id
    assert (sample.height, sample.width) == image.shape[:2]
    assert [(i.id, i.class_name, i.has_mask) for i in sample.instances] == [(1, "red", True), (2, "blue", True)]
    for instance, channel in zip(sample.instances, (0, 2), strict=True):
        mask, truth = instance.mask, image[:, :, channel] > 0
        whole = np.zeros(truth.shape, bool)
        inside = from_run_lengths(np.array(mask.runs, np.uint32), (mask.height, mask.width))
        whole[mask.y : mask.y + mask.height, mask.x : mask.x + mask.width] = inside
        assert np.count_nonzero(whole & truth) / np.count_nonzero(whole | truth) > 0.9


def test_class_table_is_kept_for_those_who_come_later(node: Probe, participant: Any) -> None:
    reader = subscribe(participant, node, ClassTable, "class_table", Policy.Durability.TransientLocal)
    (table,) = node.until(lambda: reader.take(N=10), "the class table at Cyclone DDS")
    assert (table.model, tuple(table.class_names)) == (INFO.name, INFO.class_names)


def stamp_of(message: Any) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec
