import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;

/** The city job on Apache Flink. Arguments: servers, topic. */
public final class City {
  static final class Json extends AbstractDeserializationSchema<Reading> {
    private transient ObjectReader reader;

    @Override
    public void open(InitializationContext context) {
      reader = new ObjectMapper().readerFor(CityReading.class);
    }

    @Override
    public Reading deserialize(byte[] value) throws IOException {
      Totals.record();
      CityReading reading = reader.readValue(value);
      return new Reading(
          reading.device + "/" + reading.property, reading.time, reading.value);
    }
  }

  public static void main(String[] arguments) throws Exception {
    Pipeline.run(
        arguments,
        new Json(),
        (start, stats) ->
            Totals.add(
                start,
                stats.count,
                stats.min,
                stats.max,
                stats.mean(),
                stats.mean() > Contract.THRESHOLD ? 1 : 0));
  }
}
