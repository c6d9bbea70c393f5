package io.bigcast.sparktest;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;

/** Points in a job at which whoever runs it can look, or strike. */
final class Steps {
  private final BufferedReader input = new BufferedReader(new InputStreamReader(System.in));

  /** Prints `STEP name`, and waits for a line on standard input. */
  void reach(String name) throws IOException {
    System.out.println("STEP " + name);
    System.out.flush();
    if (input.readLine() == null) {
      throw new IOException("standard input ended at step " + name);
    }
  }
}
