package io.bigcast.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.InvalidClassException;
import java.io.Serializable;
import java.util.HashMap;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.junit.jupiter.api.Test;

class DriverMessagesTest {
  private static final class Ask extends DriverRequest<HashMap<String, byte[]>> {
    private static final long serialVersionUID = 1L;

    final BigcastException.Code refusal;

    Ask(BigcastException.Code refusal) {
      this.refusal = refusal;
    }

    @Override
    HashMap<String, byte[]> answer(DriverSide driver) throws BigcastException {
      if (refusal != null) {
        throw new BigcastException(refusal, "because");
      }
      HashMap<String, byte[]> answer = new HashMap<>();
      answer.put("some", new byte[] {1, 2});
      return answer;
    }
  }

  private static DriverSide driver() {
    SparkConf spark = new SparkConf(false);
    return new DriverSide(spark, BigcastConf.from(spark), AppIdentity.create(), null);
  }

  @Test
  @SuppressWarnings("unchecked")
  void aRequestRunsOnTheDriverAndItsAnswerComesBack() throws Exception {
    byte[] answer = DriverMessages.receive(DriverMessages.pack(new Ask(null)), driver());
    HashMap<String, byte[]> read = (HashMap<String, byte[]>) DriverMessages.unpack(answer);
    assertArrayEquals(new byte[] {1, 2}, read.get("some"));
  }

  @Test
  void whatTheDriverThrowsComesBackTyped() throws Exception {
    byte[] request = DriverMessages.pack(new Ask(BigcastException.Code.NOT_FOUND));
    Object answer = DriverMessages.unpack(DriverMessages.receive(request, driver()));
    assertEquals(BigcastException.Code.NOT_FOUND, ((BigcastException) answer).code());
    assertEquals("NOT_FOUND: because", ((BigcastException) answer).getMessage());
    Object off = DriverMessages.unpack(DriverMessages.receive(request, null));
    assertEquals(BigcastException.Code.UNAVAILABLE, ((BigcastException) off).code());
  }

  @Test
  void noClassButOursAndTheJdksIsReadOutOfAMessage() throws Exception {
    for (Serializable foreign : new Serializable[] {new SparkConf(false), new SparkConf[1]}) {
      byte[] message = DriverMessages.pack(foreign);
      assertThrows(InvalidClassException.class, () -> DriverMessages.unpack(message));
    }
  }

  @Test
  void sparkCarriesRequestsOnceThePluginHasStarted() {
    SparkConf spark =
        new SparkConf(false)
            .setMaster("local[1]")
            .setAppName("messages")
            .set("spark.ui.enabled", "false")
            .set("spark.driver.host", "127.0.0.1")
            .set("spark.plugins", BigcastPlugin.class.getName());
    assertTrue(refusal().getMessage().contains("has not started"));
    try (JavaSparkContext context = new JavaSparkContext(spark)) {
      // Local mode needs no Bigcast; the answer shows that the request was there.
      assertEquals("UNAVAILABLE: Bigcast is off on the driver", refusal().getMessage());
    }
    assertTrue(refusal().getMessage().contains("has not started"));
  }

  private static BigcastException refusal() {
    return assertThrows(BigcastException.class, () -> ExecutorSide.ask(new Ask(null)));
  }
}
