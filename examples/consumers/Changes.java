import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Prints every device change, decoded: java -cp 'target/dependency/*' Changes.java BROKERS REGISTRY [TOPIC].
 *
 * <p>Needs the jars that pom.xml names. Stops at the end of the topic.
 */
class Changes {
  public static void main(String[] arguments) throws Exception {
    var topic = arguments.length > 2 ? arguments[2] : "abm.devices";
    var settings = new Properties();
    settings.put("bootstrap.servers", arguments[0]);
    settings.put("isolation.level", "read_committed"); // Java's default shows events of aborted pages
    settings.put("enable.auto.commit", "false");
    var bytes = new ByteArrayDeserializer();
    Map<Integer, Schema> schemas = new HashMap<>();
    try (var consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
      var partitions = consumer.partitionsFor(topic).stream().map(it -> new TopicPartition(topic, it.partition())).toList();
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      var ends = consumer.endOffsets(partitions);
      // The end by position: a transaction's marker takes an offset too, so the last record is never at end - 1.
      while (partitions.stream().anyMatch(it -> consumer.position(it) < ends.get(it))) {
        for (var message : consumer.poll(Duration.ofMillis(500))) {
          if (message.value() == null) continue; // a tombstone follows each `op=d`
          var framed = ByteBuffer.wrap(message.value());
          framed.get();
          int id = framed.getInt();
          if (!schemas.containsKey(id)) schemas.put(id, schema(arguments[1], id));
          var decoder = DecoderFactory.get().binaryDecoder(message.value(), 5, message.value().length - 5, null);
          GenericRecord change = new GenericDatumReader<GenericRecord>(schemas.get(id)).read(null, decoder);
          var device = (GenericRecord) (change.get("after") != null ? change.get("after") : change.get("before"));
          System.out.println(change.get("kind") + " " + device.get("serial_number") + " " + change.get("changed"));
        }
      }
    }
  }

  private static Schema schema(String registry, int id) throws Exception {
    var request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).build();
    var answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
    return new Schema.Parser().parse(new ObjectMapper().readTree(answer.body()).get("schema").asText());
  }
}
