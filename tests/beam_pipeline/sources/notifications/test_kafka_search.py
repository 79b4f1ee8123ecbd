"""A search for a message of Kafka that is lost, taken twice, or passed by event time.

Whatever happens to the broker, its partitions, its clock and the workers: each message that the
broker still has is emitted, and once in what the runner keeps. Event time never passes a message
that is not emitted, never goes back, and goes on whenever the broker answers. A group's offsets
are never ahead of what the runner would fall back to.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beam_pipeline.sources.notifications import source
from beam_pipeline.sources.notifications.address import KafkaAddress
from beam_pipeline.sources.notifications.channel import PartitionPosition
from beam_pipeline.sources.notifications.kafka import KafkaChannel
from tests.beam_pipeline.sources.notifications.simulated_kafka import TOPIC, SimulatedBroker
from tests.beam_pipeline.sources.notifications.simulated_runner import SimulatedRunner, Worker
from tests.search import quiet, search

_ADDRESS = KafkaAddress(("broker:9092",), TOPIC, "the-group")
_PICK = st.integers(0, 1000)
_GRACE = 10.0
_MOST = source.MAX_MESSAGES_PER_PULL


class Followed(RuleBasedStateMachine):
    """A broker, two workers, and a runner."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = SimulatedBroker(1_770_000_000.0)
        self.workers = [self.new_worker(), self.new_worker()]
        self.runner = SimulatedRunner(self.workers[0], self.check_split)
        self.before: float | None = None

    def new_worker(self) -> Worker:
        channel = KafkaChannel(
            _ADDRESS,
            {},
            connect=self.broker.connect,  # type: ignore[arg-type]
            clock=lambda: self.broker.now,
        )
        return Worker(_ADDRESS, channel, lambda: self.broker.now)

    def check_split(self, partition: int, offset: int, reached: float) -> None:
        for entry in self.broker.logs[partition].entries[offset:]:
            assert entry is None or entry.time >= reached, "a split is ahead of its partition"

    @initialize(
        partitions=st.integers(0, 3),
        waiting=st.integers(0, 30),
        most=st.integers(8, 30),
        is_running=st.booleans(),
    )
    def begin(self, partitions: int, waiting: int, most: int, is_running: bool) -> None:
        source.MAX_MESSAGES_PER_PULL = most
        for _ in range(partitions):
            self.add_partition()
        for number in range(waiting):
            self.publish(number, 1)
            self.broker.pass_time(7.0)
        if is_running:
            self.runner.poll_partitions()
            self.runner.begin_checkpoint()
            self.runner.complete_checkpoint()

    # What happens to the broker.

    @rule(pick=_PICK, number=st.integers(1, 30))
    def publish(self, pick: int, number: int) -> None:
        for _ in range(number):
            self.broker.publish(sorted(self.broker.logs)[pick % len(self.broker.logs)])

    @rule(skew=st.sampled_from([0.0, 4.5, -4.5]))
    def publish_by_another_clock(self, skew: float) -> None:
        self.broker.skew = skew

    @rule(pick=_PICK, number=st.integers(1, 3))
    def end_transactions(self, pick: int, number: int) -> None:
        self.broker.logs[pick % len(self.broker.logs)].entries += [None] * number

    @rule()
    def add_partition(self) -> None:
        if len(self.broker.logs) < 4:
            self.broker.logs[len(self.broker.logs)] = type(self.broker.logs[0])()

    @rule(pick=_PICK, number=st.integers(1, 40))
    def forget_old_messages(self, pick: int, number: int) -> None:
        log = self.broker.logs[pick % len(self.broker.logs)]
        log.first = min(log.first + number, log.end)

    @rule(has_times=st.booleans())
    def have_times(self, has_times: bool) -> None:
        self.broker.has_times = has_times

    @rule(
        what=st.sampled_from(["list", "ends", "ends 0", "ends 1", "committed", "answer", "fetch"])
    )
    def fail(self, what: str) -> None:
        self.broker.failing.add(what)

    @rule(number=st.integers(1, 8))
    def stall(self, number: int) -> None:
        self.broker.stalls += number

    @rule()
    def heal(self) -> None:
        self.broker.failing.clear()
        self.broker.stalls = 0

    @rule(rate=st.sampled_from([0.0, 0.0, 2.0, 5.0, 20.0]))
    def be_busy(self, rate: float) -> None:
        self.broker.rate = rate

    @rule(seconds=st.sampled_from([0.2, 1.1, 5.3]))
    def pass_time(self, seconds: float) -> None:
        self.broker.pass_time(seconds)

    @rule(seconds=st.sampled_from([61.0, 601.7, 90_000.0]))
    def skip_time(self, seconds: float) -> None:
        self.broker.now += seconds

    # The workers and their runner.

    @rule()
    def new_instances(self) -> None:
        self.runner.worker.new_instances()

    @rule(pick=_PICK)
    def move(self, pick: int) -> None:
        self.runner.worker = self.workers[pick % 2]

    @rule()
    def begin_checkpoint(self) -> None:
        self.runner.begin_checkpoint()

    @rule()
    def complete_checkpoint(self) -> None:
        self.runner.complete_checkpoint()

    @rule(pick=_PICK)
    def look_in_a_checkpoint(self, pick: int) -> None:
        self.runner.begin_checkpoint()
        self.runner.poll(pick)
        self.runner.complete_checkpoint()

    @rule(pick=_PICK, new_worker=st.booleans())
    def crash(self, pick: int, new_worker: bool) -> None:
        self.runner.crash()
        self.before = self.runner.now.watermark
        if new_worker:
            self.workers[pick % 2] = self.new_worker()
        self.move(pick)

    @rule(pick=_PICK, number=st.integers(1, 50), new_worker=st.booleans())
    def crash_after_a_look(self, pick: int, number: int, new_worker: bool) -> None:
        self.publish(pick, number)
        self.look_in_a_checkpoint(pick)
        self.runner.crash()
        self.before = self.runner.now.watermark
        if new_worker:
            self.runner.worker = self.new_worker()

    @rule()
    def poll_partitions(self) -> None:
        self.runner.poll_partitions()

    @rule(pick=_PICK)
    def poll(self, pick: int) -> None:
        self.runner.poll(pick)

    @rule(rounds=st.integers(1, 3), seconds=st.sampled_from([1.0, 5.0]))
    def run(self, rounds: int, seconds: float) -> None:
        """While the broker answers, event time goes on at each round, however busy it is."""
        for _ in range(rounds):
            began = self.broker.now
            is_well = not self.broker.failing and not self.broker.stalls
            self.runner.round()
            if is_well:
                assert self.runner.now.watermark is not None
                assert self.runner.now.watermark >= began - _GRACE - 1e-5
            self.broker.pass_time(seconds)

    # What always holds.

    @invariant()
    def event_time_never_goes_back(self) -> None:
        watermark = self.runner.now.watermark
        if self.before is not None:
            assert watermark is not None
            assert watermark >= self.before
        self.before = watermark

    @invariant()
    def event_time_passes_no_message(self) -> None:
        watermark, emitted = self.runner.now.watermark, set(self.runner.now.emitted)
        if watermark is None:
            return
        for key, time in self.broker.messages().items():
            assert key in emitted or time >= watermark, f"event time has passed {key}"

    @invariant()
    def no_message_is_emitted_twice(self) -> None:
        assert max(Counter(self.runner.now.emitted).values(), default=0) <= 1

    @invariant()
    def a_group_is_never_ahead_of_what_is_kept(self) -> None:
        kept = self.runner.complete.offsets
        for partition, offset in self.broker.committed.items():
            assert (kept.get(partition) or 0) >= offset

    def teardown(self) -> None:
        """In the end all is well, and what is there was emitted."""
        self.heal()
        self.be_busy(0.0)
        for _ in range(2):
            self.runner.round()
            self.broker.pass_time(1.0)
        missed = self.broker.messages().keys() - set(self.runner.now.emitted)
        source.MAX_MESSAGES_PER_PULL = _MOST
        assert not missed, f"never handed on: {missed}"


_quiet = quiet("beam_pipeline.sources.notifications")


Followed.TestCase.settings = search(500, stateful_step_count=40)
TestNoMessageIsLostOrPassed = pytest.mark.search(Followed.TestCase)


def test_a_worker_whose_bundle_was_lost_commits_nothing_when_the_partition_comes_back() -> None:
    """Found by the search. Flink calls back for bundles that are in no checkpoint."""
    broker = SimulatedBroker(1_770_000_000.0)
    broker.publish(0)

    def channel() -> KafkaChannel:
        return KafkaChannel(
            _ADDRESS,
            {},
            connect=broker.connect,  # type: ignore[arg-type]
            clock=lambda: broker.now,
        )

    first, second = channel(), channel()
    lost = first.finalizer_for(0, first.pull(0, PartitionPosition(), 8).receipt)
    assert lost is not None
    lost()  # The checkpoint is complete, but does not contain the pull; then the job fails.
    position = second.pull(0, PartitionPosition(), 8).position
    assert position.offset == 1
    first.pull(0, position, 8)
    assert first.finalizer_for(0, None) is None
    assert broker.committed == {}
