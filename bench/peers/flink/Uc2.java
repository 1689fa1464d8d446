import java.io.IOException;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;

/** The UC2 job on Apache Flink. Arguments: servers, topic. */
public final class Uc2 {
  static final class Avro extends AbstractDeserializationSchema<Reading> {
    private transient PowerRecord.Reader reader;

    @Override
    public void open(InitializationContext context) {
      reader = new PowerRecord.Reader();
    }

    @Override
    public Reading deserialize(byte[] value) throws IOException {
      Totals.record();
      PowerRecord record = reader.read(value);
      return new Reading(record.identifier, record.timestamp, record.valueInW);
    }
  }

  public static void main(String[] arguments) throws Exception {
    Pipeline.run(
        arguments,
        new Avro(),
        (start, stats) ->
            Totals.add(
                start,
                stats.count,
                stats.sum,
                stats.min,
                stats.max,
                stats.mean(),
                stats.variance()));
  }
}
