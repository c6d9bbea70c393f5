package io.bigcast.spark;

import io.bigcast.spark.BigcastConf.Key;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;

/** What there is to say about settings: their reference, and which one was meant. */
final class SettingsHelp {
  private static final String[] BYTE_UNITS = {"", "k", "m", "g", "t"};

  private SettingsHelp() {}

  /** One line about a key that means nothing. */
  static String unknown(String key) {
    Key nearest =
        Collections.min(
            Arrays.asList(Key.values()), Comparator.comparingInt(each -> distance(key, each.key)));
    return key + " is not a setting; did you mean " + nearest.key + "?";
  }

  /** The reference for the documentation, in Markdown. */
  static String toMarkdown() {
    StringBuilder out = new StringBuilder("| setting | type | default | range | meaning |\n");
    out.append("|---|---|---|---|---|\n");
    for (Key key : Key.values()) {
      String def = key.defaultValue.isEmpty() ? "" : "`" + key.defaultValue + "`";
      String type = key.type.text;
      out.append(String.format("| `%s` | %s | %s | %s | %s |%n", key.key, type, def, range(key), key.doc));
    }
    return out.toString();
  }

  private static String range(Key key) {
    switch (key.type) {
      case BOOLEAN:
        return "`true`, `false`";
      case CHOICE:
        return "`" + String.join("`, `", key.choices) + "`";
      case BYTES:
        return limits(bytes(key.min), key.max == Long.MAX_VALUE ? "" : bytes(key.max));
      case MILLISECONDS:
        return limits(time(key.min), time(key.max));
      case INTEGER:
        return limits(Long.toString(key.min), Long.toString(key.max));
      default:
        return "";
    }
  }

  private static String limits(String min, String max) {
    return max.isEmpty() ? "from " + min : min + " to " + max;
  }

  private static String bytes(long value) {
    int unit = 0;
    while (value > 0 && value % 1024 == 0 && unit + 1 < BYTE_UNITS.length) {
      value /= 1024;
      unit++;
    }
    return value + BYTE_UNITS[unit];
  }

  private static String time(long ms) {
    long hours = ms / 3_600_000;
    return hours > 0 ? hours + "h" : ms / 1000 + "s";
  }

  /** Levenshtein's, by rows: insertions, deletions and changes of a character that make b of a. */
  static int distance(String a, String b) {
    int[] row = new int[b.length() + 1];
    for (int j = 0; j < row.length; j++) {
      row[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j < row.length; j++) {
        int changed = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(changed, 1 + Math.min(row[j], row[j - 1]));
      }
    }
    return row[b.length()];
  }
}
