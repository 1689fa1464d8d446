import java.time.Duration;

/** The numbers of the two jobs; a test compares them with contract.py. */
final class Contract {
  static final Duration WINDOW = Duration.ofMillis(60_000);
  static final Duration LATENESS = Duration.ofMillis(10_000);
  static final double THRESHOLD = 40.003;
  static final int FRAME_BYTES = 5;

  private Contract() {}
}
