package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.bigcast.spark.BigcastStats.Reason;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.spark.api.python.PythonBroadcast;
import org.apache.spark.util.KnownSizeEstimation;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class OffloadRulesTest {
  private static final OffloadRules RULES = new OffloadRules(1000);

  private static Reason reason(Object value) {
    return RULES.delegateReason(value, false, "main");
  }

  @Test
  void localBroadcastsStay() {
    assertEquals(Reason.LOCAL, RULES.delegateReason(new byte[5000], true, "main"));
  }

  @Test
  void taskBinariesStayWhateverTheirSize() {
    OffloadRules all = new OffloadRules(0);
    assertEquals(
        Reason.TASK_BINARY, all.delegateReason(new byte[5000], false, "dag-scheduler-event-loop"));
    assertNull(all.delegateReason(new byte[5000], false, "dag-scheduler"));
  }

  @Test
  void mapStatusesStay() {
    byte[][] value = {new byte[5000]}; // as Spark's are, and as a user's may be
    for (Object each : new Object[] {value, "any"}) {
      assertEquals(
          Reason.MAP_STATUS, RULES.delegateReason(each, false, "map-output-dispatcher-3"));
    }
    assertNull(reason(value));
  }

  @Test
  void knownSizesDecideWithoutSerialising(@TempDir Path folder) throws IOException {
    assertEquals(Reason.SMALL, reason(null));
    assertEquals(Reason.SMALL, reason(new byte[999]));
    assertNull(reason(new byte[1000]));
    assertEquals(Reason.SMALL, reason((KnownSizeEstimation) () -> 999));
    assertNull(reason((KnownSizeEstimation) () -> 1000));
    Path pickled = Files.write(folder.resolve("pickled"), new byte[999]);
    assertEquals(Reason.SMALL, reason(new PythonBroadcast(pickled.toString())));
    Files.write(pickled, new byte[1000]);
    assertNull(reason(new PythonBroadcast(pickled.toString())));
    assertNull(reason("only serialising tells"));
  }

  @Test
  void whatIsWrittenIsSmallUpToABoundThatAHeapCanHold() throws IOException {
    assertEquals(1000, RULES.leastWritten("only serialising tells"));
    assertEquals(1000, RULES.leastWritten((KnownSizeEstimation) () -> 5000), "it is an estimate");
    assertEquals(1000, RULES.leastWritten(new byte[2][5000]), "its rows may be one and the same");
    assertEquals(0, RULES.leastWritten(new byte[5000]));
    assertEquals(0, RULES.leastWritten(new PythonBroadcast("")));
    OffloadRules few = new OffloadRules(1L << 40);
    assertEquals(Reason.SMALL, few.delegateReason(new byte[5000], false, "main"));
    assertEquals(64 << 20, few.leastWritten("only serialising tells"));
  }

  @Test
  void whatTheApplicationMakesLargeIsMissed() {
    OffloadRules rules = new OffloadRules(1000);
    assertTrue(rules.isMissed(1000, "main"));
    assertFalse(rules.isMissed(999, "main"));
    assertFalse(rules.isMissed(-1, "main"));
    assertFalse(new OffloadRules(0).isMissed(-1, "main"));
    assertFalse(rules.isMissed(5000, "dag-scheduler-event-loop"));
    assertFalse(rules.isMissed(5000, "map-output-dispatcher-3"));
  }
}
