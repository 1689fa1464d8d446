import java.time.Duration;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.WindowStore;

/** What both jobs on Kafka Streams share: configuration, state, and how they end. */
final class Application {
  /** Kafka Streams has no public name for it; see `run`. */
  private static final String EMIT_INTERVAL = "__emit.interval.ms.kstreams.windowed.aggregation__";

  /**
   * The default, size + grace, would let the last record of a partition, which is minutes ahead,
   * expire the windows that it closes before they are emitted.
   */
  private static final Duration RETENTION = Duration.ofMinutes(5);

  private Application() {}

  interface Decode<T> {
    T from(byte[] value) throws Exception;
  }

  /** A decoder whose faults are not to be caught by the caller. */
  static <T> Deserializer<T> checked(Decode<T> decode) {
    return (topic, value) -> {
      Totals.record();
      try {
        return decode.from(value);
      } catch (Exception error) {
        throw new IllegalStateException(error);
      }
    };
  }

  /** A serde that only reads: no reading is ever written. */
  static <T> Serde<T> reading(Deserializer<T> deserializer) {
    return Serdes.serdeFrom(
        (topic, reading) -> {
          throw new UnsupportedOperationException();
        },
        deserializer);
  }

  /** Windows in memory and without a changelog: the fastest there is, and lost in a crash. */
  static Materialized<String, Stats, WindowStore<Bytes, byte[]>> inMemory() {
    Serde<Stats> stats =
        Serdes.serdeFrom(
            (topic, kept) -> kept == null ? null : kept.toBytes(),
            (topic, bytes) -> bytes == null ? null : Stats.of(bytes));
    return Materialized.<String, Stats, WindowStore<Bytes, byte[]>>with(Serdes.String(), stats)
        .withStoreType(Materialized.StoreType.IN_MEMORY)
        .withLoggingDisabled()
        .withCachingDisabled()
        .withRetention(RETENTION);
  }

  /** Run until all records have been through the topology, then tell the totals. */
  static void run(StreamsBuilder builder, KStream<?, ?> source, String[] arguments)
      throws Exception {
    long records = Long.parseLong(arguments[2]);
    CountDownLatch done = new CountDownLatch(1);
    long[] seen = {0};
    // A second child of the source: it sees a record after the windows have, on their thread.
    source.foreach(
        (key, reading) -> {
          if (++seen[0] == records) {
            done.countDown();
          }
        });
    Properties properties = new Properties();
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, "peers-" + UUID.randomUUID());
    properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    properties.put(StreamsConfig.STATE_DIR_CONFIG, System.getProperty("java.io.tmpdir"));
    properties.put(StreamsConfig.ENABLE_METRICS_PUSH_CONFIG, false);
    properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    properties.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 5_000);
    // Closed windows leave at most once a second, at the next record: with the default the last
    // ones, closed by the topic's last records, would never leave.
    properties.put(EMIT_INTERVAL, 0L);
    KafkaStreams streams = new KafkaStreams(builder.build(), properties);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          Runtime.getRuntime().halt(1);
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    streams.start();
    done.await();
    long late =
        streams.metrics().values().stream()
            .filter(metric -> metric.metricName().name().equals("dropped-records-total"))
            .mapToLong(metric -> ((Number) metric.metricValue()).longValue())
            .sum();
    streams.close(Duration.ofSeconds(30));
    Totals.tell(late);
  }
}
