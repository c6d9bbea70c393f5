package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

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
    assertEquals(Reason.MAP_STATUS, reason(new byte[][] {new byte[5000]}));
    assertEquals(
        Reason.MAP_STATUS, RULES.delegateReason("any", false, "map-output-dispatcher-3"));
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
}
