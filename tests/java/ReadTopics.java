import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads topics from their beginning to the end that stands at the start, one JSON object a line: the checker's eyes, apart from librdkafka. */
class ReadTopics {
  public static void main(String[] arguments) {
    var settings = new Properties();
    settings.put("bootstrap.servers", arguments[0]);
    settings.put("isolation.level", arguments[1]);
    settings.put("enable.auto.commit", "false");
    settings.put("auto.offset.reset", "earliest");
    settings.put("allow.auto.create.topics", "false");
    var bytes = new ByteArrayDeserializer();
    var out = new StringBuilder();
    try (var consumer = new KafkaConsumer<byte[], byte[]>(settings, bytes, bytes)) {
      List<TopicPartition> partitions = new ArrayList<>();
      for (int at = 2; at < arguments.length; at++)
        for (PartitionInfo info : consumer.partitionsFor(arguments[at])) partitions.add(new TopicPartition(info.topic(), info.partition()));
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
      while (!ends.entrySet().stream().allMatch(end -> consumer.position(end.getKey()) >= end.getValue())) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) write(out, record);
        if (out.length() > 1 << 20) {
          System.out.print(out);
          out.setLength(0);
        }
      }
    }
    System.out.print(out);
    System.out.flush();
  }

  private static void write(StringBuilder out, ConsumerRecord<byte[], byte[]> record) {
    out.append("{\"topic\":\"").append(record.topic()).append("\",\"partition\":").append(record.partition());
    out.append(",\"offset\":").append(record.offset()).append(",\"timestamp\":").append(record.timestamp());
    out.append(",\"key\":").append(encoded(record.key())).append(",\"value\":").append(encoded(record.value())).append(",\"headers\":[");
    String comma = "";
    for (Header header : record.headers()) {
      out.append(comma).append("[\"").append(header.key()).append("\",").append(encoded(header.value())).append(']');
      comma = ",";
    }
    out.append("]}\n");
  }

  private static String encoded(byte[] bytes) {
    return bytes == null ? "null" : '"' + Base64.getEncoder().encodeToString(bytes) + '"';
  }
}
