package org.apache.beam.runners.flink.translation.wrappers.streaming;

import java.lang.reflect.Field;
import java.util.HashSet;
import java.util.Set;
import org.apache.beam.runners.core.StateNamespace;
import org.apache.beam.runners.core.TimerInternals.TimerData;
import org.apache.beam.runners.core.TimerInternalsFactory;
import org.apache.beam.runners.flink.translation.utils.Locker;

/** Which timers a streaming stage has set that have not fired; in this package to be let see. */
public final class PendingTimers {
  private final ExecutableStageDoFnOperator<?, ?> operator;

  private PendingTimers(ExecutableStageDoFnOperator<?, ?> operator) {
    this.operator = operator;
  }

  /** Those of the operator whose inner class the factory is; null if it is no operator's. */
  public static PendingTimers of(TimerInternalsFactory<?> factory) {
    if (!(factory instanceof ExecutableStageDoFnOperator.SdfFlinkTimerInternalsFactory)) {
      return null;
    }
    try {
      Field outer = factory.getClass().getDeclaredField("this$0");
      outer.setAccessible(true);
      return new PendingTimers((ExecutableStageDoFnOperator<?, ?>) outer.get(factory));
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("This Beam is not the one this was written for", e);
    }
  }

  /** The ids of a key's pending timers. */
  public Set<String> ids(Object key, StateNamespace namespace) throws Exception {
    Set<String> ids = new HashSet<>();
    try (Locker locker = Locker.locked(operator.getLockToAcquireForStateAccessDuringBundles())) {
      operator.getKeyedStateBackend().setCurrentKey(key);
      for (TimerData timer : operator.timerInternals.pendingTimersById.values()) {
        if (timer.getNamespace().equals(namespace)) {
          ids.add(timer.getTimerId());
        }
      }
    }
    return ids;
  }
}
