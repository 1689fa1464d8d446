import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.TimeWindows;

/** The UC2 job on Kafka Streams. Arguments: servers, topic, records. */
public final class Uc2 {
  public static void main(String[] arguments) throws Exception {
    PowerRecord.Reader avro = new PowerRecord.Reader();
    Serde<PowerRecord> readings = Application.reading(Application.checked(avro::read));
    StreamsBuilder builder = new StreamsBuilder();
    KStream<String, PowerRecord> source =
        builder.stream(
            arguments[1],
            Consumed.with(Serdes.String(), readings)
                .withTimestampExtractor(
                    (record, before) -> ((PowerRecord) record.value()).timestamp));
    source
        .groupByKey(Grouped.with(Serdes.String(), readings))
        .windowedBy(TimeWindows.ofSizeAndGrace(Contract.WINDOW, Contract.LATENESS))
        .emitStrategy(EmitStrategy.onWindowClose())
        .aggregate(
            Stats::new,
            (key, reading, stats) -> stats.add(reading.valueInW),
            Application.inMemory())
        .toStream()
        .foreach(
            (key, stats) ->
                Totals.add(
                    key.window().start(),
                    stats.count,
                    stats.sum,
                    stats.min,
                    stats.max,
                    stats.mean(),
                    stats.variance()));
    Application.run(builder, source, arguments);
  }
}
