package io.bigcast.sparktest.ext;

import java.io.Serializable;
import java.util.Arrays;

/** A user's class that reaches driver and executors only by `--jars`. */
public final class Payload implements Serializable {
  private static final long serialVersionUID = 1;
  private String name;
  private byte[] content;

  private Payload() {}

  public Payload(String name, byte[] content) {
    this.name = name;
    this.content = content;
  }

  public long digest() {
    return 31L * name.hashCode() + Arrays.hashCode(content);
  }
}
