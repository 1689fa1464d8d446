import com.fasterxml.jackson.annotation.JsonIgnoreProperties;

/** The fields of a city reading that the job asks for, as Jackson fills them. */
@JsonIgnoreProperties(ignoreUnknown = true)
public final class CityReading {
  public String device;
  public String property;
  public long time;
  public double value;
}
