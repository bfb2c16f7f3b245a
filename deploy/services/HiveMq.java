import com.hivemq.configuration.service.InternalConfigurations;
import com.hivemq.embedded.EmbeddedHiveMQ;
import java.nio.file.Path;

/** Runs the embedded HiveMQ CE until it is told to end: HiveMq.java DIR, with DIR/conf, DIR/data and DIR/extensions. */
final class HiveMq {
    public static void main(String[] args) throws Exception {
        Path dir = Path.of(args[0]);
        // HiveMQ turns every client away unless an extension lets it in; there is none here.
        InternalConfigurations.AUTH_DENY_UNAUTHENTICATED_CONNECTIONS.set(false);
        EmbeddedHiveMQ broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(dir.resolve("conf"))
                .withDataFolder(dir.resolve("data"))
                .withExtensionsFolder(dir.resolve("extensions"))
                .build();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> broker.stop().join()));
        broker.start().join();
        Thread.currentThread().join();
    }
}
