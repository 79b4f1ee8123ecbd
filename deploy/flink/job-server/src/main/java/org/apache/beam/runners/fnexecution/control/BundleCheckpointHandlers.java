package org.apache.beam.runners.fnexecution.control;

import java.util.Collection;
import java.util.Collections;
import java.util.Set;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.BundleApplication;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.DelayedBundleApplication;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.ProcessBundleResponse;
import org.apache.beam.runners.core.StateInternals;
import org.apache.beam.runners.core.StateInternalsFactory;
import org.apache.beam.runners.core.StateNamespace;
import org.apache.beam.runners.core.StateNamespaces;
import org.apache.beam.runners.core.StateTags;
import org.apache.beam.runners.core.TimerInternals;
import org.apache.beam.runners.core.TimerInternalsFactory;
import org.apache.beam.runners.flink.translation.wrappers.streaming.PendingTimers;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.state.TimeDomain;
import org.apache.beam.sdk.transforms.windowing.BoundedWindow;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.beam.sdk.values.WindowedValues;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Timestamp;
import org.joda.time.Duration;
import org.joda.time.Instant;

/**
 * Stands in the place of Beam 2.70.0's class of this name, which gives what a splittable DoFn
 * defers a name of its own each time. Flink registers a keyed state for each name and never
 * forgets one, so that checkpoints of a source that polls grow without end (apache/beam#27648,
 * fixed upstream by apache/beam#39191).
 */
public class BundleCheckpointHandlers {

  /**
   * Keeps each residual that a bundle leaves in a state, and sets a timer of the same name upon
   * which the operator reads it from there and goes on with it.
   *
   * <p>A name is used again as soon as no timer of it is pending. The operator takes a timer out of
   * the pending ones and reads the residual in one go, between two bundles' ends, so that a name
   * without a pending timer has nothing in its state that is still wanted. States and timers are
   * those of one key (the element, encoded) and window: an element that is there once uses one name
   * for ever, and N equal ones in one window use N. What they held last stays in their state when
   * they are done, one residual for each element, as no call comes when a residual was read.
   *
   * <p>Names of Beam's own class (with two numbers) are not among those given here: a savepoint
   * that was made with it can be resumed. Where pending timers can't be told, which is in batch
   * jobs, each residual gets a new name as ever; no checkpoint is made there.
   */
  public static class StateAndTimerBundleCheckpointHandler<T> implements BundleCheckpointHandler {
    public static final String SDF_PREFIX = "sdf_checkpoint";

    private final TimerInternalsFactory<T> timers;
    private final StateInternalsFactory<T> states;
    private final Coder<WindowedValue<T>> residualCoder;
    private final Coder windowCoder;
    private final PendingTimers pending;
    private long given = 0;

    public StateAndTimerBundleCheckpointHandler(
        TimerInternalsFactory<T> timerInternalsFactory,
        StateInternalsFactory<T> stateInternalsFactory,
        Coder<WindowedValue<T>> residualCoder,
        Coder windowCoder) {
      this.timers = timerInternalsFactory;
      this.states = stateInternalsFactory;
      this.residualCoder = residualCoder;
      this.windowCoder = windowCoder;
      this.pending = PendingTimers.of(timerInternalsFactory);
    }

    public static boolean isSdfTimer(String timerId) {
      return timerId.startsWith(SDF_PREFIX);
    }

    @Override
    public void onCheckpoint(ProcessBundleResponse response) {
      for (DelayedBundleApplication residual : response.getResidualRootsList()) {
        if (residual.hasApplication()) {
          try {
            keep(residual);
          } catch (Exception e) {
            throw new RuntimeException("A residual could not be kept for later", e);
          }
        }
      }
    }

    private void keep(DelayedBundleApplication residual) throws Exception {
      BundleApplication application = residual.getApplication();
      WindowedValue<T> value =
          CoderUtils.decodeFromByteArray(residualCoder, application.getElement().toByteArray());
      TimerInternals timer = timers.timerInternalsForKey(value.getValue());
      StateInternals state = states.stateInternalsForKey(value.getValue());
      Instant when = Instant.now();
      if (residual.hasRequestedTimeDelay()) {
        when = when.plus(Duration.standardSeconds(residual.getRequestedTimeDelay().getSeconds()));
      }
      Instant held = held(application.getOutputWatermarksMap().values());
      for (BoundedWindow window : value.getWindows()) {
        StateNamespace namespace = StateNamespaces.window(windowCoder, window);
        String name = freeName(state.getKey(), namespace);
        timer.setTimer(namespace, name, "", when, held, TimeDomain.PROCESSING_TIME);
        state
            .state(namespace, StateTags.value(name, residualCoder))
            .write(
                WindowedValues.of(
                    value.getValue(),
                    value.getTimestamp(),
                    Collections.singletonList(window),
                    value.getPaneInfo()));
      }
    }

    /** Where the residual's output may begin in event time. */
    private static Instant held(Collection<Timestamp> outputWatermarks) {
      return outputWatermarks.stream()
          .map(watermark -> Instant.ofEpochSecond(watermark.getSeconds()))
          .min(Instant::compareTo)
          .orElse(BoundedWindow.TIMESTAMP_MIN_VALUE);
    }

    private String freeName(Object key, StateNamespace namespace) throws Exception {
      if (pending == null) {
        return SDF_PREFIX + ":new:" + given++;
      }
      Set<String> taken = pending.ids(key, namespace);
      int number = 0;
      while (taken.contains(SDF_PREFIX + ":" + number)) {
        number++;
      }
      return SDF_PREFIX + ":" + number;
    }
  }
}
