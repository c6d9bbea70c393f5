package io.bigcast.spark;

import java.util.Map;
import org.apache.spark.api.plugin.DriverPlugin;
import org.apache.spark.api.plugin.ExecutorPlugin;
import org.apache.spark.api.plugin.PluginContext;
import org.apache.spark.api.plugin.SparkPlugin;

/** Set {@code spark.plugins=io.bigcast.spark.BigcastPlugin}; docs/SPARK.md tells the rest. */
public final class BigcastPlugin implements SparkPlugin {
  @Override
  public DriverPlugin driverPlugin() {
    return new BigcastDriverPlugin();
  }

  @Override
  public ExecutorPlugin executorPlugin() {
    return new ExecutorPlugin() {
      @Override
      public void init(PluginContext context, Map<String, String> extraConf) {
        Metrics.registerExecutor(context.metricRegistry());
        ExecutorSide.start(context);
      }

      @Override
      public void shutdown() {
        ExecutorSide.close();
      }
    };
  }
}
