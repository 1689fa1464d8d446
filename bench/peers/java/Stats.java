import java.nio.ByteBuffer;

/** What a window keeps of one series; public with public fields, as Flink wants it. */
public final class Stats {
  public long count;
  public double sum;
  public double squares;
  public double min = Double.POSITIVE_INFINITY;
  public double max = Double.NEGATIVE_INFINITY;

  static final int BYTES = 5 * 8;

  Stats add(double value) {
    count++;
    sum += value;
    squares += value * value;
    min = Math.min(min, value);
    max = Math.max(max, value);
    return this;
  }

  Stats merge(Stats other) {
    count += other.count;
    sum += other.sum;
    squares += other.squares;
    min = Math.min(min, other.min);
    max = Math.max(max, other.max);
    return this;
  }

  double mean() {
    return sum / count;
  }

  double variance() {
    return squares / count - mean() * mean();
  }

  byte[] toBytes() {
    ByteBuffer out = ByteBuffer.allocate(BYTES);
    return out.putLong(count).putDouble(sum).putDouble(squares).putDouble(min).putDouble(max).array();
  }

  static Stats of(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    Stats stats = new Stats();
    stats.count = in.getLong();
    stats.sum = in.getDouble();
    stats.squares = in.getDouble();
    stats.min = in.getDouble();
    stats.max = in.getDouble();
    return stats;
  }
}
