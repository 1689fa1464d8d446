import java.io.IOException;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.util.Utf8;

/**
 * Reads a framed ActivePowerRecord field by field, which is what the class that Avro's compiler
 * generates does in its customDecode. The last field, `property`, is not asked for.
 */
final class PowerRecord {
  String identifier;
  long timestamp;
  double valueInW;

  /** Reads records one after the other, reusing the decoder; for one thread. */
  static final class Reader {
    private BinaryDecoder decoder;
    private Utf8 identifier = new Utf8();

    PowerRecord read(byte[] value) throws IOException {
      int length = value.length - Contract.FRAME_BYTES;
      decoder =
          DecoderFactory.get().binaryDecoder(value, Contract.FRAME_BYTES, length, decoder);
      PowerRecord record = new PowerRecord();
      identifier = decoder.readString(identifier);
      record.identifier = identifier.toString();
      record.timestamp = decoder.readLong();
      record.valueInW = decoder.readDouble();
      return record;
    }
  }
}
