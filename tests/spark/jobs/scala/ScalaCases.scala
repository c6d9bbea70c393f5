package io.bigcast.sparktest

import java.util.Objects
import org.apache.spark.broadcast.Broadcast
import org.apache.spark.rdd.RDD
import org.apache.spark.sql.functions.{sum, udf}
import scala.collection.immutable.TreeMap
import scala.collection.mutable
import scala.reflect.ClassTag
import scala.util.Random

case class Item(id: Int, name: String, price: Option[BigDecimal], tags: List[String])

sealed trait Shape
case class Circle(radius: Double, label: String) extends Shape
case object Nowhere extends Shape

/** What Scala programs broadcast, and how they use it: sources of both Scala 2.12 and 2.13. */
object ScalaCases {
  private val Large = 2 << 20 // no large value here is shorter, by whichever serializer

  def addTo(cases: Cases): Unit = {
    val suite = new ScalaCases(cases)
    cases.add("scala_case_classes", () => suite.check(Large)(items))
    cases.add("scala_map", () => suite.check(Large)(items.map(each => each.name -> each).toMap))
    cases.add("scala_sorted_map", () => suite.check(Large)(TreeMap(names.zipWithIndex: _*)))
    cases.add("scala_mutable_map",
      () => suite.check(Large)(mutable.HashMap(names.map(each => each -> Option(each.length)): _*)))
    cases.add("scala_array_of_long", () => suite.check(Large)(longs))
    cases.add("scala_array_of_arrays", () => suite.check(Large)(longs.grouped(1000).toArray))
    cases.add("scala_number", () => suite.check(0)(42))
    cases.add("scala_unit", () => suite.check(0)(()))
    cases.add("scala_singletons", () => suite.singletons())
    cases.add("scala_function", () => suite.function())
    cases.add("scala_in_a_class", () => suite.inAClass())
    cases.add("scala_dataset", () => suite.inDatasets())
    cases.add("scala_udf", () => suite.inUdf())
  }

  private def names: Vector[String] =
    Vector.tabulate(60000)(i => s"the name of number $i, and more of it, so that it is long")

  private def items: Vector[Item] =
    names.zipWithIndex.map { case (name, i) =>
      Item(i, name, if (i % 3 == 0) None else Some(BigDecimal(i, 2)), List.fill(i / 100 % 4)("tag"))
    }

  private def longs: Array[Long] = {
    val random = new Random(17)
    Array.fill(400000)(random.nextLong())
  }
}

final class ScalaCases private (cases: Cases) {
  import ScalaCases._

  private val session = cases.session
  private val context = session.sparkContext

  private def broadcast[T: ClassTag](size: Long, value: T): Broadcast[T] =
    cases.via[Broadcast[T]](cases.expected(size), 1, () => context.broadcast(value))

  /** A value of at least that size, made where it is compared: on the driver and in each task. */
  private def check[T: ClassTag](size: Long)(make: => T): Unit = {
    val sent = broadcast(size, make)
    val again = () => make
    val same = context.parallelize(1 to 4, 4).map(_ => Objects.deepEquals(sent.value, again()))
    Cases.equal(Seq.fill(4)(true), same.collect().toSeq, "values equal in tasks")
    Cases.check(Objects.deepEquals(sent.value, make), "not equal on the driver")
    sent.destroy()
  }

  /** Objects that there is one of in each JVM are that one, wherever they arrive. */
  private def singletons(): Unit = {
    val shapes = Vector.tabulate(60000)(i =>
      if (i % 2 == 0) Nowhere else Circle(i, s"the circle whose number in the row is $i"))
    val sent = broadcast[(Vector[Shape], Option[Int], List[Int])](1 << 20, (shapes, None, Nil))
    val found = context.parallelize(1 to 4, 4).map { _ =>
      val (shapes, none, nil) = sent.value
      val circles = shapes.collect { case Circle(radius, _) => radius }.sum
      (shapes.count(_ eq Nowhere), circles, none eq None, nil eq Nil)
    }
    val circles = (1 until 60000 by 2).map(_.toDouble).sum
    Cases.equal(Seq.fill(4)((30000, circles, true, true)), found.collect().toSeq, "found in tasks")
    sent.destroy()
  }

  /** The value is a closure. */
  private def function(): Unit = {
    val table = longs
    val sent = broadcast(Large, (i: Int) => table(i) ^ i)
    val found = context.parallelize(0 until 400000 by 1000, 4).map(i => sent.value(i)).collect()
    Cases.equal((0 until 400000 by 1000).map(i => table(i) ^ i), found.toSeq, "results")
    sent.destroy()
  }

  private def inAClass(): Unit = {
    val sent = broadcast(Large, longs)
    val found = new Lookup(sent).all(context.parallelize(0 until 400000 by 1000, 4)).collect()
    val table = longs
    Cases.equal((0 until 400000 by 1000).map(table(_)), found.toSeq, "found")
    sent.destroy()
  }

  private def inDatasets(): Unit = {
    import session.implicits._
    val sent = broadcast(Large, items)
    val found = session.range(0, 60000, 100, 4).as[Long]
      .map(i => sent.value(i.toInt))
      .filter(item => sent.value(item.id).price == item.price && item.tags.nonEmpty)
      .map(item => (item.id, item.name))
    val expected = items.filter(item => item.id % 100 == 0 && item.tags.nonEmpty)
      .map(item => (item.id, item.name))
    Cases.equal(450, expected.size, "rows expected")
    Cases.equal(expected.toSet, found.collect().toSet, "rows")
    sent.destroy()
  }

  private def inUdf(): Unit = {
    import session.implicits._
    val sent = broadcast(Large, longs)
    val low = udf((i: Long) => sent.value(i.toInt) & 0xffff)
    session.udf.register("scala_cases_low", (i: Long) => sent.value(i.toInt) & 0xffff)
    val rows = session.range(0, 400000, 100, 4)
    val table = longs
    val expected = table.indices.by(100).map(table(_) & 0xffff).sum
    val found = rows.select(low($"id").as("low")).agg(sum("low")).head().getLong(0)
    Cases.equal(expected, found, "sum")
    val bySql = rows.selectExpr("sum(scala_cases_low(id))").head().getLong(0)
    Cases.equal(expected, bySql, "sum by SQL")
    sent.destroy()
  }
}

/** Takes a broadcast into tasks as a field. */
class Lookup(table: Broadcast[Array[Long]]) extends Serializable {
  def all(indices: RDD[Int]): RDD[Long] = indices.map(find)

  private def find(i: Int): Long = table.value(i)
}
