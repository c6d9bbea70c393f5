// What users type into spark-shell, line by line. Their classes and closures reach executors from
// the shell's own class server. Prints `CASE name ok|FAIL why` for each case, as the Java jobs do.
import io.bigcast.sparktest.{Item, Probe}
import java.util.concurrent.FutureTask
import org.apache.spark.api.java.JavaSparkContext

val pattern = sc.getConf.get("spark.bigcasttest.filter", "").r

def shellCase(name: String)(body: => Unit): Unit = {
  if (pattern.findFirstIn(name).nonEmpty) {
    val start = System.nanoTime()
    val outcome = try { body; "ok" } catch { case e: Throwable => s"FAIL $e" }
    val millis = (System.nanoTime() - start) / 1000000
    println(s"CASE $name $outcome ($millis ms)".replaceAll("\\s+", " "))
  }
}

def equal(expected: Any, found: Any): Unit = {
  if (expected != found) {
    throw new AssertionError(s"expected $expected, found $found".take(600))
  }
}

val indices = 0 until 40000 by 7
def tasks = sc.parallelize(indices, 4)

case class Point(id: Int, x: Double, name: String)

val points = sc.broadcast(Vector.tabulate(40000)(i => Point(i, i * 0.5, s"the point of number $i")))

shellCase("shell_case_class") {
  val good = tasks.filter(i => points.value(i) == Point(i, i * 0.5, s"the point of number $i"))
  equal(indices.size, good.count())
  equal(Point(7, 3.5, "the point of number 7"), tasks.map(points.value(_)).collect().apply(1))
}

trait Shape { def area: Double }
case class Square(side: Double, label: String) extends Shape { def area = side * side }
case class Strip(length: Double, label: String) extends Shape { def area = length }

def shape(i: Int): Shape = {
  if (i % 2 == 0) Square(i, s"the square of number $i") else Strip(i, s"the strip of number $i")
}

val shapes = sc.broadcast(Array.tabulate(40000)(shape))

shellCase("shell_trait") {
  equal(indices.map(shape(_).area).sum, tasks.map(i => shapes.value(i).area).sum)
}

// One class is of --jars, the one that holds it is the shell's.
case class Stored(item: Item, place: String)

val stock = sc.broadcast(Vector.tabulate(40000)(i => Stored(Item(i, s"the item of number $i", None, Nil), "here")))

shellCase("shell_class_of_jars_within") {
  val good = tasks.filter(i => stock.value(i).item == Item(i, s"the item of number $i", None, Nil))
  equal(indices.size, good.count())
}

case class Named(id: Long, name: String)

shellCase("shell_dataset") {
  val named = spark.range(0, 40000, 7, 4).as[Long].map(i => Named(i, points.value(i.toInt).name))
  val good = named.filter(each => each.name == points.value(each.id.toInt).name)
  equal(indices.map(i => Named(i, s"the point of number $i")).toSet, good.collect().toSet)
}

val longs = sc.broadcast(Array.tabulate(200000)(i => i.toLong << 32 | i))

shellCase("shell_udf") {
  spark.udf.register("low", (i: Long) => longs.value(i.toInt) & 0xffff)
  equal(indices.sum, spark.sql("SELECT sum(low(id)) FROM range(0, 40000, 7)").head().getLong(0))
}

// With keepValue=never what the driver has is collected, and then read back.
def readBack[T](value: => T): T = {
  System.gc()
  val before = Probe.here.get("driverRereads")
  val found = value
  if (before != null) {
    equal(before + 1, Probe.here.get("driverRereads"))
  }
  found
}

shellCase("shell_read_on_the_driver") {
  equal(Point(7, 3.5, "the point of number 7"), readBack(points.value(7)))
}

// A class loader that knows no class of a user's, such as the threads of the JVM's common pool have.
shellCase("shell_read_in_another_thread") {
  val read = new FutureTask[Int](() => stock.value.size)
  val thread = new Thread(read)
  thread.setContextClassLoader(ClassLoader.getSystemClassLoader)
  equal(40000, readBack { thread.start(); read.get() })
}

// A name that is another class from here on.
case class Point(id: Int, label: String)

val relabelled = sc.broadcast(Vector.tabulate(40000)(i => Point(i, s"the other point of number $i")))

shellCase("shell_class_defined_again") {
  val good = tasks.filter(i => relabelled.value(i) == Point(i, s"the other point of number $i"))
  equal(indices.size, good.count())
  equal(indices.map(_ * 0.5).sum, tasks.map(i => points.value(i).x).sum)
}

val counted = Probe.onExecutors(new JavaSparkContext(sc), 1)
counted.forEach((_, each) => each.forEach((name, count) => println(s"COUNTER executors.$name $count")))
Probe.here.forEach((name, count) => println(s"COUNTER $name $count"))
println("END of cases")
