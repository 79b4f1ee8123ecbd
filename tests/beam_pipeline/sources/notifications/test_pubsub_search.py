"""A search for a message of Pub/Sub that is lost, acknowledged too early, or passed by event time.

Whatever happens to Pub/Sub, its streams, its clock and the workers: each message is emitted, and
is acknowledged only once the runner would not fall back to before it. Without a crash or the end of
a stream it is emitted once. Event time never passes a message that is not emitted, never goes
back, and goes on once Pub/Sub answers for longer than a deadline.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beam_pipeline.sources.notifications import pubsub, source
from beam_pipeline.sources.notifications.address import PubSubAddress
from beam_pipeline.sources.notifications.channel import ChannelError, PartitionPosition
from beam_pipeline.sources.notifications.pubsub import PubSubChannel
from tests.beam_pipeline.sources.notifications.simulated_pubsub import (
    SimulatedClient,
    SimulatedSubscription,
)
from tests.beam_pipeline.sources.notifications.simulated_runner import SimulatedRunner, Worker
from tests.search import quiet, search

_ADDRESS = PubSubAddress("my-project", "cameras")
_GRACE = 10.0
_MOST, _MAX_UNACKNOWLEDGED = source.MAX_MESSAGES_PER_PULL, pubsub.MAX_UNACKNOWLEDGED


class Followed(RuleBasedStateMachine):
    """A subscription, a worker, and a runner."""

    def __init__(self) -> None:
        super().__init__()
        self.subscription = SimulatedSubscription(1_770_000_000.0)
        self.runner = SimulatedRunner(self.new_worker())
        self.before: float | None = None
        self.may_come_again = 0

    def new_worker(self) -> Worker:
        channel = PubSubChannel(
            _ADDRESS,
            connect=self.subscription.connect,  # type: ignore[arg-type]
            clock=lambda: self.subscription.now,
            timer=lambda: self.subscription.now,
        )
        return Worker(_ADDRESS, channel, lambda: self.subscription.now)

    @initialize(waiting=st.integers(0, 30), most=st.integers(8, 30), is_running=st.booleans())
    def begin(self, waiting: int, most: int, is_running: bool) -> None:
        source.MAX_MESSAGES_PER_PULL, pubsub.MAX_UNACKNOWLEDGED = most, 200
        for _ in range(waiting):
            self.subscription.publish()
            self.subscription.pass_time(7.0)
        if is_running:
            self.settle()

    # What happens to Pub/Sub.

    @rule(number=st.integers(1, 30), skew=st.sampled_from([0.0, 4.5, -4.5]))
    def publish(self, number: int, skew: float) -> None:
        for _ in range(number):
            self.subscription.publish(skew)

    @rule(rate=st.sampled_from([0.0, 0.0, 1.0, 5.0]))
    def be_busy(self, rate: float) -> None:
        self.subscription.rate = rate

    @rule(number=st.integers(0, 10), seconds=st.sampled_from([1.0, 20.0, 70.0]))
    def be_away(self, number: int, seconds: float) -> None:
        """Pulls notice that Pub/Sub is away; a client takes nine seconds to come back."""
        self.subscription.is_away = True
        self.runner.poll(0)
        self.publish(number, 0.0)
        self.subscription.pass_time(seconds)
        self.runner.poll(0)
        self.subscription.come_back()

    @rule()
    def end_streams(self) -> None:
        self.subscription.end_streams()
        self.may_come_again += 1

    @rule(seconds=st.sampled_from([0.2, 1.1, 5.3, 20.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.subscription.pass_time(seconds)
        stream = self.runner.worker.channel._stream
        if stream is not None and self.subscription.now - stream._polled_at > 120.0:
            self.may_come_again += 1  # An idle stream gives its messages back.

    # The worker and its runner.

    @rule()
    def new_instances(self) -> None:
        self.runner.worker.new_instances()

    @rule()
    def begin_checkpoint(self) -> None:
        self.runner.begin_checkpoint()

    @rule()
    def complete_checkpoint(self) -> None:
        self.runner.complete_checkpoint()

    @rule(new_worker=st.booleans())
    def crash(self, new_worker: bool) -> None:
        self.runner.crash()
        self.before = self.runner.now.watermark
        self.may_come_again += 1
        if new_worker:
            self.subscription.die()
            self.runner.worker = self.new_worker()

    @rule(number=st.integers(1, 50), in_checkpoint=st.booleans(), new_worker=st.booleans())
    def crash_after_a_look(self, number: int, in_checkpoint: bool, new_worker: bool) -> None:
        self.publish(number, 0.0)
        self.subscription.pass_time(1.0)
        if in_checkpoint:
            self.look_in_a_checkpoint()
        else:
            self.runner.poll(0)
        self.crash(new_worker)

    @rule()
    def poll_partitions(self) -> None:
        self.runner.poll_partitions()

    @rule()
    def poll(self) -> None:
        self.runner.poll(0)

    @rule()
    def look_in_a_checkpoint(self) -> None:
        self.runner.begin_checkpoint()
        self.runner.poll(0)
        self.runner.complete_checkpoint()

    def run_on(self) -> None:
        """Rounds, each with a checkpoint, until there is room for more messages."""
        for number in range(100):
            self.runner.begin_checkpoint()
            self.runner.round()
            self.runner.complete_checkpoint()
            self.subscription.pass_time(1.0)
            if number > 3 and len(self.subscription.outstanding) < 100:
                return

    @rule()
    def settle(self) -> None:
        """Once Pub/Sub has answered for longer than a deadline, event time goes on."""
        self.run_on()
        self.subscription.pass_time(66.0)
        self.run_on()
        began = self.subscription.now
        self.runner.round()
        watermark = self.runner.now.watermark
        assert watermark is not None
        assert watermark >= began - _GRACE - 1e-5

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
        for entry in self.subscription.outstanding.values():
            assert entry.key in emitted or entry.time >= watermark, (
                f"event time has passed {entry.key}"
            )

    @invariant()
    def no_message_comes_again_without_a_reason(self) -> None:
        emitted = Counter(self.runner.now.emitted)
        assert max(emitted.values(), default=0) <= 1 + self.may_come_again

    @invariant()
    def what_is_acknowledged_is_kept(self) -> None:
        assert self.subscription.acknowledged <= set(self.runner.complete.emitted)

    def teardown(self) -> None:
        """In the end all is well, and what was published was emitted and is acknowledged."""
        self.subscription.rate = 0.0
        for _ in range(3):
            self.run_on()
            self.subscription.pass_time(61.0)
        source.MAX_MESSAGES_PER_PULL, pubsub.MAX_UNACKNOWLEDGED = _MOST, _MAX_UNACKNOWLEDGED
        outstanding = self.subscription.outstanding.keys()
        missed = outstanding - set(self.runner.now.emitted)
        assert not missed, f"never handed on: {missed}"
        assert not outstanding, f"never acknowledged: {outstanding}"


_quiet = quiet("beam_pipeline.sources.notifications")


Followed.TestCase.settings = search(300, stateful_step_count=40)
TestNoMessageIsLostOrPassed = pytest.mark.search(Followed.TestCase)


def channel(subscription: SimulatedSubscription) -> PubSubChannel:
    return PubSubChannel(
        _ADDRESS,
        connect=subscription.connect,  # type: ignore[arg-type]
        clock=lambda: subscription.now,
        timer=lambda: subscription.now,
    )


@pytest.fixture
def subscription() -> SimulatedSubscription:
    return SimulatedSubscription(1_770_000_000.0)


def settled(subscription: SimulatedSubscription) -> tuple[PubSubChannel, PartitionPosition]:
    """A channel whose stream is open for long, and where its next look goes on."""
    source = channel(subscription)
    position = source.pull(0, PartitionPosition(), 1000).position
    subscription.pass_time(66.0)
    batch = source.pull(0, position, 1000)
    assert batch.is_at_end
    return source, batch.position


def test_event_time_waits_for_what_a_worker_held_that_died(
    subscription: SimulatedSubscription,
) -> None:
    source, position = settled(subscription)
    subscription.publish()
    subscription.pass_time(1.0)
    assert len(source.pull(0, position, 1000).messages) == 1
    subscription.die()
    other = channel(subscription)
    messages: list[object] = []
    for _ in range(64):
        batch = other.pull(0, position, 1000)
        messages, position = [*messages, *batch.messages], batch.position
        assert batch.until is None
        subscription.pass_time(1.0)
    assert len(messages) == 1
    subscription.pass_time(1.0)
    now = subscription.now
    assert other.pull(0, position, 1000).until == now


def test_event_time_waits_after_pubsub_was_away(subscription: SimulatedSubscription) -> None:
    source, position = settled(subscription)
    subscription.is_away = True
    with pytest.raises(ChannelError, match="ServiceUnavailable: no network"):
        source.pull(0, position, 1000)
    subscription.come_back()
    batch = source.pull(0, position, 1000)
    assert (batch.until, batch.is_at_end) == (None, False)
    subscription.pass_time(66.0)
    assert source.pull(0, batch.position, 1000).is_at_end


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_UNACKNOWLEDGED", 5), ("MAX_UNACKNOWLEDGED_BYTES", 5000)]
)
def test_event_time_waits_while_no_more_messages_can_be_held(
    limit: str, value: int, subscription: SimulatedSubscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, limit, value)
    source, position = settled(subscription)
    for _ in range(8):
        subscription.publish()
    subscription.pass_time(1.0)
    batch = source.pull(0, position, 1000)
    assert (len(batch.messages), batch.until, batch.is_at_end) == (5, None, False)
    source.acknowledge(0, [batch.receipt[:1]])
    subscription.pass_time(1.0)
    batch = source.pull(0, batch.position, 1000)
    assert (len(batch.messages), batch.until, batch.is_at_end) == (0, None, False)


def test_more_than_ten_thousand_messages_are_under_way(
    subscription: SimulatedSubscription,
) -> None:
    source, position = settled(subscription)
    for _ in range(12_000):
        subscription.publish()
    subscription.pass_time(1.0)
    taken = 0
    for _ in range(12):
        batch = source.pull(0, position, 1000)
        position, taken = batch.position, taken + len(batch.messages)
    assert taken == 12_000


def test_event_time_is_that_of_the_oldest_message_that_waits(
    subscription: SimulatedSubscription,
) -> None:
    source, position = settled(subscription)
    times = []
    for _ in range(3):
        times.append(subscription.now)
        subscription.publish()
        subscription.pass_time(1.0)
    batch = source.pull(0, position, 1)
    assert len(batch.messages) == 1
    assert batch.is_full
    assert batch.until == pytest.approx(times[1], rel=0, abs=0.001)


def test_receipts_of_before_a_failure_are_forgotten(subscription: SimulatedSubscription) -> None:
    source, position = settled(subscription)
    subscription.publish()
    subscription.pass_time(1.0)
    call = source.finalizer_for(0, source.pull(0, position, 1000).receipt)
    assert call is not None
    call()
    source.pull(0, position, 1000)  # The runner goes back.
    assert source.finalizer_for(0, None) is None


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_bundle_that_the_runner_has_not_kept_is_never_acknowledged(
    subscription: SimulatedSubscription, has_ended: bool
) -> None:
    """Found by the search: it was finalized with a checkpoint that had begun before it, and the
    runner went back to that checkpoint once the stream had ended."""
    source, position = settled(subscription)
    subscription.publish()
    subscription.pass_time(1.0)
    batch = source.pull(0, position, 1000)
    call = source.finalizer_for(0, batch.receipt)
    assert call is not None
    if has_ended:
        subscription.end_streams()
        with pytest.raises(ChannelError, match="the stream has ended"):
            source.pull(0, batch.position, 1000)
    call()
    for _ in range(3):
        batch = source.pull(0, position, 1000)
        if (call := source.finalizer_for(0, batch.receipt)) is not None:
            call()
        subscription.pass_time(1.0)
    assert subscription.acknowledged == set()


def test_what_is_finalized_after_its_stream_has_ended_is_not_acknowledged(
    subscription: SimulatedSubscription,
) -> None:
    source, position = settled(subscription)
    subscription.publish()
    subscription.pass_time(1.0)
    batch = source.pull(0, position, 1000)
    call = source.finalizer_for(0, batch.receipt)
    assert call is not None
    subscription.end_streams()
    with pytest.raises(ChannelError, match="the stream has ended"):
        source.pull(0, batch.position, 1000)
    call()
    assert source.finalizer_for(0, None) is None


def test_an_outage_is_noticed_while_messages_wait(subscription: SimulatedSubscription) -> None:
    """Found by the search: what was published in it comes after what waited in the client."""
    source, position = settled(subscription)
    subscription.publish()
    subscription.publish()
    subscription.pass_time(1.0)
    subscription.is_away = True
    subscription.publish()
    subscription.pass_time(20.0)
    position = source.pull(0, position, 1).position
    subscription.come_back()
    batch = source.pull(0, position, 1000)
    assert (len(batch.messages), batch.until, batch.is_at_end) == (1, None, False)


@settings(deadline=None)
@given(poll_seconds=st.floats(0.1, 86400.0), published_after=st.floats(0.0, 1.0))
def test_a_stream_stays_open_however_long_the_looks_may_pause(
    poll_seconds: float, published_after: float
) -> None:
    subscription = SimulatedSubscription(1_770_000_000.0)
    clients = []

    def connect() -> SimulatedClient:
        clients.append(subscription.connect())
        return clients[-1]

    source = PubSubChannel(
        _ADDRESS,
        connect=connect,  # type: ignore[arg-type]
        clock=lambda: subscription.now,
        timer=lambda: subscription.now,
    )
    runner = SimulatedRunner(Worker(_ADDRESS, source, lambda: subscription.now, poll_seconds))
    runner.poll_partitions()
    runner.poll(0)
    subscription.pass_time(66.0)  # Only then is it known that a look has taken all.
    for number in range(6):
        pause = runner.poll(0)
        assert len(runner.now.emitted) == number
        subscription.pass_time(pause * published_after)
        subscription.publish()
        subscription.pass_time(pause * (1 - published_after))
    assert [client.is_open for client in clients] == [True]
