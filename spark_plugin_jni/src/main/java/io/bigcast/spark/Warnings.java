package io.bigcast.spark;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The plugin's log, and warnings that are given once, however often their cause comes up. */
final class Warnings {
  static final Logger LOG = LoggerFactory.getLogger("io.bigcast.spark.Bigcast");

  private static final int REMEMBERED_MAX = 1000;
  private static final Set<String> GIVEN =
      Collections.newSetFromMap(
          Collections.synchronizedMap(
              new LinkedHashMap<String, Boolean>() {
                private static final long serialVersionUID = 1L;

                @Override
                protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
                  return size() > REMEMBERED_MAX;
                }
              }));

  private Warnings() {}

  static void once(String message) {
    if (GIVEN.add(message)) {
      LOG.warn("{}", message);
    }
  }
}
