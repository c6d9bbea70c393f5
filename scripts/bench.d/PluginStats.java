/** What the plugin counted in this JVM; by reflection, as plain Spark does not have it. */
final class PluginStats {
  private PluginStats() {}

  static long get(String counter) {
    try {
      Class<?> stats = Class.forName("io.bigcast.spark.BigcastStats");
      return ((Number) stats.getMethod(counter).invoke(null)).longValue();
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("the plugin is not on the class path", e);
    }
  }
}
