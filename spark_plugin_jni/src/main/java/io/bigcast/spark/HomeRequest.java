package io.bigcast.spark;

/** Asks which home to follow: "host:port", or empty while the driver is starting it. */
final class HomeRequest extends DriverRequest<String> {
  private static final long serialVersionUID = 1L;

  @Override
  String answer(DriverSide driver) throws BigcastException {
    return driver.homeToFollow();
  }
}
