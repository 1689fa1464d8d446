/** What travels through the pipeline; a POJO, so that Flink's own serializer takes it. */
public final class Reading {
  public String series;
  public long time;
  public double value;

  public Reading() {}

  Reading(String series, long time, double value) {
    this.series = series;
    this.time = time;
    this.value = value;
  }
}
