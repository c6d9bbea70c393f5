package io.bigcast.spark;

/** A Python worker can't read a broadcast of bigcast.broadcast: what shall it read instead? */
final class PythonValueRequest extends DriverRequest<byte[]> {
  private static final long serialVersionUID = 1L;

  /** Of its blob. */
  final String name;

  PythonValueRequest(String name) {
    this.name = name;
  }

  @Override
  byte[] answer(DriverSide driver) throws BigcastException {
    return driver.pythonValues().answer(name);
  }
}
