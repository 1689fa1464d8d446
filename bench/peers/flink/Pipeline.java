import java.io.Serializable;
import java.util.UUID;
import java.util.concurrent.atomic.LongAdder;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/** What both jobs on Flink share: source, watermarks, windows, and how they end. */
final class Pipeline {
  private static final LongAdder LATE = new LongAdder();

  private Pipeline() {}

  /** What is done with a closed window. */
  interface Closed extends Serializable {
    void accept(long startMs, Stats stats);
  }

  static final class Fold implements AggregateFunction<Reading, Stats, Stats> {
    @Override
    public Stats createAccumulator() {
      return new Stats();
    }

    @Override
    public Stats add(Reading reading, Stats stats) {
      return stats.add(reading.value);
    }

    @Override
    public Stats getResult(Stats stats) {
      return stats;
    }

    @Override
    public Stats merge(Stats one, Stats other) {
      return one.merge(other);
    }
  }

  static final class Emit extends ProcessWindowFunction<Stats, Long, String, TimeWindow> {
    private final Closed closed;

    Emit(Closed closed) {
      this.closed = closed;
    }

    @Override
    public void process(String series, Context window, Iterable<Stats> folded, Collector<Long> out) {
      closed.accept(window.window().getStart(), folded.iterator().next());
      out.collect(window.window().getStart());
    }
  }

  static void run(String[] arguments, DeserializationSchema<Reading> format, Closed closed)
      throws Exception {
    // One slot: at two, readings of the late 0.1 % are late or not by chance, and the broker
    // needs the second core. State on the heap, no checkpoints: the fastest there is.
    StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(1);
    environment.getConfig().enableObjectReuse();
    environment.setBufferTimeout(-1);
    KafkaSource<Reading> source =
        KafkaSource.<Reading>builder()
            .setBootstrapServers(arguments[0])
            .setTopics(arguments[1])
            .setGroupId("peers-" + UUID.randomUUID())
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setBounded(OffsetsInitializer.latest())
            .setValueOnlyDeserializer(format)
            .setProperty("max.poll.records", "5000")
            .build();
    WatermarkStrategy<Reading> watermarks =
        WatermarkStrategy.<Reading>forBoundedOutOfOrderness(Contract.LATENESS)
            .withTimestampAssigner((reading, before) -> reading.time);
    OutputTag<Reading> late = new OutputTag<>("late") {};
    SingleOutputStreamOperator<Long> windows =
        environment
            .fromSource(source, watermarks, "readings")
            .keyBy(reading -> reading.series)
            .window(TumblingEventTimeWindows.of(Contract.WINDOW))
            .sideOutputLateData(late)
            .aggregate(new Fold(), new Emit(closed));
    windows.sinkTo(new DiscardingSink<>());
    windows
        .getSideOutput(late)
        .process(new CountLate())
        .sinkTo(new DiscardingSink<>());
    environment.execute();
    Totals.tell(LATE.sum());
    // Threads of the local cluster may outlive the job.
    System.exit(0);
  }

  static final class CountLate extends ProcessFunction<Reading, Long> {
    @Override
    public void processElement(Reading reading, Context context, Collector<Long> out) {
      LATE.increment();
    }
  }
}
