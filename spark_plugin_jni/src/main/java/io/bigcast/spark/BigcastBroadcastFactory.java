package io.bigcast.spark;

import io.bigcast.spark.BigcastStats.Reason;
import org.apache.spark.SparkConf;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.broadcast.BroadcastFactory;
import scala.reflect.ClassTag;

/** Stands before Spark's own factory and takes from it what is worth taking. Thread-safe. */
final class BigcastBroadcastFactory implements BroadcastFactory {
  private final BroadcastFactory delegate;
  private final OffloadRules rules;
  private final DriverSide driver;

  /** Everything stays with Spark for this reason; null: it depends. */
  private final Reason always;

  BigcastBroadcastFactory(
      BroadcastFactory delegate, OffloadRules rules, DriverSide driver, Reason always) {
    this.delegate = delegate;
    this.rules = rules;
    this.driver = driver;
    this.always = always;
  }

  @Override
  public void initialize(boolean isDriver, SparkConf conf) {
    delegate.initialize(isDriver, conf);
  }

  @Override
  public <T> Broadcast<T> newBroadcast(
      T value, boolean isLocal, long id, boolean serializedOnly, ClassTag<T> tag) {
    if (value instanceof Source) {
      Broadcast<T> published = publish(value, isLocal, id);
      return published != null
          ? published
          : delegate.newBroadcast(value, isLocal, id, serializedOnly, tag);
    }
    Reason byRule = rules.delegateReason(value, isLocal, Thread.currentThread().getName());
    if (byRule == null && always == null) {
      Broadcast<T> offloaded = driver.offload(value, id, serializedOnly);
      if (offloaded != null) {
        return offloaded;
      }
    } else if (byRule == null && always == Reason.DRY_RUN) {
      tell(value, id);
    } else {
      stays(value, id, byRule);
    }
    return delegate.newBroadcast(value, isLocal, id, serializedOnly, tag);
  }

  /** Each that the user would miss has a line; what Spark makes and what is small is too much for that. */
  private void stays(Object value, long id, Reason byRule) {
    Reason reason = always == null || always == Reason.DRY_RUN ? byRule : always;
    BigcastStats.countDelegated(reason);
    long size = OffloadRules.knownSize(value);
    if ((byRule == null && always == Reason.UNAVAILABLE)
        || rules.isMissed(size, Thread.currentThread().getName())) {
      Warnings.LOG.info("{}", Explain.stayed(id, size, reason));
    } else if (Warnings.LOG.isDebugEnabled()) {
      Warnings.LOG.debug("{}", Explain.stayed(id, size, reason));
    }
  }

  /** Null if Spark's own broadcast is to carry it. Whatever its size: it is no value of the heap. */
  private <T> Broadcast<T> publish(T source, boolean isLocal, long id) {
    if (always == null && !isLocal) {
      return driver.offload(source, id, false);
    }
    Reason reason = always == null ? Reason.LOCAL : always;
    BigcastStats.countDelegated(reason);
    DriverSide.checkSparkCanCarry(
        source, new BigcastException(BigcastException.Code.UNSUPPORTED, reason.why));
    Warnings.LOG.info("{}", Explain.stayed(id, -1, reason));
    return null;
  }

  /** A dry run. What makes serialising fail is left to Spark to throw. */
  private void tell(Object value, long id) {
    long size = OffloadRules.knownSize(value);
    boolean isSmall = false; // or it would not have come here
    if (size < 0) {
      try {
        Fingerprint fingerprint = new Fingerprint();
        ValueUpload.serialise(value, fingerprint.asStream());
        size = fingerprint.size();
        isSmall = size < rules.leastWritten(value);
      } catch (Exception | StackOverflowError e) {
        Warnings.LOG.debug("broadcast {} can't be serialised", id, e);
      }
    }
    Reason reason = isSmall ? Reason.SMALL : Reason.DRY_RUN;
    BigcastStats.countDelegated(reason);
    Warnings.LOG.info("{}", Explain.stayed(id, size, reason));
  }

  @Override
  public void unbroadcast(long id, boolean removeFromDriver, boolean blocking) {
    if (driver.knows(id)) {
      driver.unbroadcast(id, removeFromDriver, blocking);
    } else {
      delegate.unbroadcast(id, removeFromDriver, blocking);
    }
  }

  @Override
  public void stop() {
    try {
      driver.close();
    } finally {
      delegate.stop();
    }
  }
}
