import java.util.Map;
import java.util.StringJoiner;
import java.util.TreeMap;

/** How a program in Java tells what it found; totals.py is its twin. */
final class Totals {
  private static final Map<Long, double[]> ROWS = new TreeMap<>();
  private static volatile boolean begun;

  private Totals() {}

  /** Say, once, that the first record has reached the program: here start-up ends. */
  static void record() {
    if (!begun) {
      begun = true;
      System.out.println("{\"first\": true}");
    }
  }

  /** Count one closed window. */
  static synchronized void add(long startMs, double... measures) {
    double[] row = ROWS.computeIfAbsent(startMs, key -> new double[measures.length + 1]);
    row[0] += 1;
    for (int place = 0; place < measures.length; place++) {
      row[place + 1] += measures[place];
    }
  }

  /** Write the one line the suite compares. */
  static synchronized void tell(long late) {
    StringJoiner minutes = new StringJoiner(", ", "{", "}");
    ROWS.forEach(
        (start, row) -> {
          StringJoiner cells = new StringJoiner(", ", "[", "]");
          for (double cell : row) {
            cells.add(Double.toString(cell));
          }
          minutes.add("\"" + start + "\": " + cells);
        });
    System.out.println("{\"minutes\": " + minutes + ", \"late\": " + late + "}");
  }
}
