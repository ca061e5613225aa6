import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.regex.Pattern;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;

/**
 * Runs the statements of a file on a Flink cluster inside of this process and prints the result of each query.
 *
 * <p>java -cp 'target/dependency/*' RunSql.java FILE BROKERS REGISTRY. Each table is read to the end that it has now, so that each query
 * ends; in Flink's own SQL client the same file shows results that stay up to date.
 */
class RunSql {
  public static void main(String[] arguments) throws Exception {
    var flink = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
    flink.getConfig().set("parallelism.default", "1");
    var text = Files.readString(Path.of(arguments[0])).replaceAll("(?m)--.*$", "");
    text = text.replace("127.0.0.1:9092", arguments[1]).replace("http://127.0.0.1:8081", arguments[2]);
    var setting = Pattern.compile("SET '(.*)' = '(.*)'");
    for (var statement : text.split(";\\s*(\n|$)")) {
      statement = statement.strip();
      var set = setting.matcher(statement);
      if (set.matches()) {
        flink.getConfig().set(set.group(1), set.group(2));
      } else if (statement.startsWith("SELECT")) {
        System.out.println(statement);
        print(flink, statement);
      } else if (!statement.isEmpty()) {
        flink.executeSql(statement.replace("'connector' =", "'scan.bounded.mode' = 'latest-offset', 'connector' ="));
      }
    }
  }

  /** A query over changes answers with changes of its result: what they add up to is printed. */
  private static void print(TableEnvironment flink, String query) throws Exception {
    var result = new LinkedHashMap<String, Integer>();
    try (var changes = flink.executeSql(query).collect()) {
      while (changes.hasNext()) {
        Row row = changes.next();
        int sign = row.getKind() == RowKind.INSERT || row.getKind() == RowKind.UPDATE_AFTER ? 1 : -1;
        row.setKind(RowKind.INSERT);
        result.merge(row.toString(), sign, Integer::sum);
      }
    }
    result.forEach((row, times) -> System.out.print((row + "\n").repeat(times)));
  }
}
