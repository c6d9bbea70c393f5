import java.io.Serializable;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.spark.SparkEnv;
import org.apache.spark.api.java.JavaSparkContext;
import scala.Function1;
import scala.collection.Iterator;
import scala.collection.Iterator$;
import scala.reflect.ClassTag$;

/** Work that every executor, of one core each, does at the same time. */
final class EverySlot {
  interface Work extends Serializable {
    long run();
  }

  private EverySlot() {}

  /** What each of them returned; insists that it was every one. */
  static List<Long> run(JavaSparkContext context, int slots, Work work) {
    List<Integer> numbers = IntStream.range(0, slots).boxed().collect(Collectors.toList());
    List<String> all =
        context.parallelize(numbers, slots).rdd().barrier().<String>mapPartitions(
                (Function1<Iterator<Integer>, Iterator<String>> & Serializable)
                    part ->
                        Iterator$.MODULE$.single(SparkEnv.get().executorId() + " " + work.run()),
                false,
                ClassTag$.MODULE$.apply(String.class))
            .toJavaRDD()
            .collect();
    if (all.stream().map(line -> line.split(" ")[0]).distinct().count() != slots) {
      throw new IllegalStateException("not every executor ran: " + all);
    }
    return all.stream().map(line -> Long.parseLong(line.split(" ")[1])).collect(Collectors.toList());
  }
}
