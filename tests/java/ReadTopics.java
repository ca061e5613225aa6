import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.utils.Utils;

/**
 * Reads topics from their beginning to the end that stands at the start, one JSON object a line: the checker's eyes, apart from librdkafka.
 *
 * The end is that of a reader who sees everything: one who sees only what is committed calls the last stable offset the end, and what lies
 * behind an open transaction would be left out without a word. Arguments: brokers, isolation level, seconds of patience with an open
 * transaction, topics.
 */
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
      Map<String, Integer> counts = new HashMap<>();
      for (int at = 3; at < arguments.length; at++) {
        List<PartitionInfo> found = consumer.partitionsFor(arguments[at]);
        counts.put(arguments[at], found.size());
        for (PartitionInfo info : found) partitions.add(new TopicPartition(info.topic(), info.partition()));
      }
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      Map<TopicPartition, Long> ends = ends(settings, partitions);
      long deadline = System.nanoTime() + Duration.ofSeconds(Long.parseLong(arguments[2])).toNanos();
      while (!ends.entrySet().stream().allMatch(end -> consumer.position(end.getKey()) >= end.getValue())) {
        if (System.nanoTime() > deadline) {
          complain(consumer, ends);
          System.exit(1);
        }
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) write(out, record, counts);
        if (out.length() > 1 << 20) {
          System.out.print(out);
          out.setLength(0);
        }
      }
    }
    System.out.print(out);
    System.out.flush();
  }

  private static Map<TopicPartition, Long> ends(Properties settings, List<TopicPartition> partitions) {
    var open = new Properties();
    open.putAll(settings);
    open.put("isolation.level", "read_uncommitted");
    var bytes = new ByteArrayDeserializer();
    try (var consumer = new KafkaConsumer<byte[], byte[]>(open, bytes, bytes)) {
      return consumer.endOffsets(partitions);
    }
  }

  private static void complain(KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, Long> ends) {
    ends.forEach((partition, end) -> {
      long reached = consumer.position(partition);
      if (reached < end) System.err.println("an open transaction hides " + partition + " from " + reached + " to " + end);
    });
  }

  private static void write(StringBuilder out, ConsumerRecord<byte[], byte[]> record, Map<String, Integer> counts) {
    out.append("{\"topic\":\"").append(record.topic()).append("\",\"partition\":").append(record.partition());
    // A topic of ours never changes its partition count; that of the topic read now is the one the record was written under.
    int home = record.key() == null ? -1 : Utils.toPositive(Utils.murmur2(record.key())) % counts.get(record.topic());
    out.append(",\"home\":").append(home);
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
