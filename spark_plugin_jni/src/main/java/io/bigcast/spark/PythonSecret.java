package io.bigcast.spark;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * The secret of the application's nodes, for the Python workers of this JVM, so that no task carries it
 * over the network.
 */
final class PythonSecret {
  private static final String FILE = "bigcast-python-secret";
  private static final String HMAC = "HmacSHA256";

  private PythonSecret() {}

  /** Null, which is told, if it can't be written: then workers read no node. */
  static WorkerFile write(AppIdentity app) {
    try {
      return WorkerFile.write(FILE, ofNodes(app.id, app.secret));
    } catch (IOException | UnsupportedOperationException e) {
      Warnings.LOG.info("Python workers here reach no node: {}", e.toString());
      return null;
    }
  }

  /**
   * As {@link NativeNode#secret}, without the native library, which an executor loads only when it is
   * needed: HKDF-SHA256 (RFC 5869) of 32 bytes, the salt as in client_native/application_secret.h.
   */
  static String ofNodes(String applicationId, String secret) {
    byte[] root = secret.replaceAll("^[ \t\r\n]+|[ \t\r\n]+$", "").getBytes(StandardCharsets.UTF_8);
    byte[] extracted = hmac("bigcast node 1".getBytes(StandardCharsets.US_ASCII), root);
    byte[] expanded =
        hmac(extracted, (applicationId + "\u0001").getBytes(StandardCharsets.US_ASCII));
    StringBuilder out = new StringBuilder();
    for (byte b : expanded) {
      out.append(String.format("%02x", b));
    }
    return out.toString();
  }

  private static byte[] hmac(byte[] key, byte[] text) {
    try {
      Mac mac = Mac.getInstance(HMAC);
      mac.init(new SecretKeySpec(key, HMAC));
      return mac.doFinal(text);
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e); // each JVM has it
    }
  }
}
