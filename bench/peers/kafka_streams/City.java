import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.TimeWindows;

/** The city job on Kafka Streams. Arguments: servers, topic, records. */
public final class City {
  private static final ObjectReader JSON = new ObjectMapper().readerFor(CityReading.class);

  public static void main(String[] arguments) throws Exception {
    Serde<CityReading> readings = Application.reading(Application.checked(JSON::readValue));
    StreamsBuilder builder = new StreamsBuilder();
    KStream<String, CityReading> source =
        builder.stream(
            arguments[1],
            Consumed.with(Serdes.String(), readings)
                .withTimestampExtractor(
                    (record, before) -> ((CityReading) record.value()).time));
    // The record key, the device, names the series, because a device measures one property;
    // so nothing has to be repartitioned.
    source
        .groupByKey(Grouped.with(Serdes.String(), readings))
        .windowedBy(TimeWindows.ofSizeAndGrace(Contract.WINDOW, Contract.LATENESS))
        .emitStrategy(EmitStrategy.onWindowClose())
        .aggregate(
            Stats::new, (key, reading, stats) -> stats.add(reading.value), Application.inMemory())
        .toStream()
        .foreach(
            (key, stats) ->
                Totals.add(
                    key.window().start(),
                    stats.count,
                    stats.min,
                    stats.max,
                    stats.mean(),
                    stats.mean() > Contract.THRESHOLD ? 1 : 0));
    Application.run(builder, source, arguments);
  }
}
