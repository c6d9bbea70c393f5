package io.bigcast.spark;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What addresses in settings must look like. Nothing is resolved or connected to. */
final class AddressSyntax {
  private static final String OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  private static final Pattern IPV4 = Pattern.compile(OCTET + "(?:\\." + OCTET + "){3}");
  private static final Pattern IPV6 = Pattern.compile("([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?:%[\\w.-]+)?");
  private static final String LABEL = "[\\p{L}\\p{N}_](?:[\\p{L}\\p{N}_-]*[\\p{L}\\p{N}_])?";
  private static final Pattern NAME = Pattern.compile(LABEL + "(?:\\." + LABEL + ")*\\.?");
  private static final Pattern FIGURES = Pattern.compile("[\\d.]+");
  private static final Pattern SERVER = Pattern.compile("(\\[[^\\[\\]]+\\]|[^:\\[\\]]+):(\\d{1,5})");
  private static final int PORT_MAX = 65_535;

  /** Of the system: sockaddr_un. */
  private static final int SOCKET_BYTES_MAX = 107;

  private AddressSyntax() {}

  /** A name, or an address; one of IPv6 may stand in brackets. */
  static boolean isHost(String text) {
    boolean isName = NAME.matcher(text).matches() && !FIGURES.matcher(text).matches();
    return isName || literal(text) != null;
  }

  /** An address that stands for all of a host's. */
  static boolean isWildcard(String host) {
    InetAddress address = literal(host);
    return address != null && address.isAnyLocalAddress();
  }

  /** host:port, an IPv6 address in brackets. */
  static boolean isServer(String text) {
    Matcher parts = SERVER.matcher(text);
    if (!parts.matches() || !isHost(parts.group(1))) {
      return false;
    }
    int port = Integer.parseInt(parts.group(2));
    return port >= 1 && port <= PORT_MAX;
  }

  /** A path from the root or, in the abstract namespace, @ and a name. */
  static boolean isUnixSocket(String text) {
    boolean isNamed = text.startsWith("@") ? text.length() > 1 : text.startsWith("/");
    return isNamed && text.getBytes(StandardCharsets.UTF_8).length <= SOCKET_BYTES_MAX;
  }

  /** Null if it is a name, or nothing. */
  private static InetAddress literal(String text) {
    if (IPV4.matcher(text).matches()) {
      return parse(text);
    }
    boolean isInBrackets = text.startsWith("[") && text.endsWith("]");
    Matcher six = IPV6.matcher(isInBrackets ? text.substring(1, text.length() - 1) : text);
    // What is in brackets Java looks up nowhere.
    return six.matches() ? parse("[" + six.group(1) + "]") : null;
  }

  private static InetAddress parse(String literal) {
    try {
      return InetAddress.getByName(literal);
    } catch (UnknownHostException e) {
      return null;
    }
  }
}
