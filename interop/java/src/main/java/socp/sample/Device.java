package socp.sample;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Properties;

/**
 * What a device keeps beside its key: an id of its own, and how far it has read the inbox and the
 * public channel.
 */
public final class Device {
  private final Path file;
  private final String id;
  private String cursor = "";
  private String channelCursor = "";

  /** Reads what was kept in a file, or makes it; with null all is forgotten with the program. */
  public Device(Path file) throws IOException {
    this.file = file;
    Properties kept = new Properties();
    if (file != null && Files.exists(file)) {
      try (var reader = Files.newBufferedReader(file)) {
        kept.load(reader);
      }
    }
    id = kept.getProperty("device_id", Signing.hex(Signing.random(16)));
    cursor = kept.getProperty("cursor", "");
    keepChannel(kept.getProperty("channel_cursor", ""));
  }

  String id() {
    return id;
  }

  synchronized String cursor() {
    return cursor;
  }

  synchronized String channelCursor() {
    return channelCursor;
  }

  /**
   * Notes the last thing of the inbox that was dealt with. A crash right before shows that once more; nothing is
   * missed.
   */
  synchronized void keep(String cursor) throws IOException {
    this.cursor = cursor;
    write();
  }

  /** The same for the last post. */
  synchronized void keepChannel(String cursor) throws IOException {
    channelCursor = cursor;
    write();
  }

  private void write() throws IOException {
    if (file == null) {
      return;
    }
    Properties kept = new Properties();
    kept.setProperty("device_id", id);
    kept.setProperty("cursor", cursor);
    kept.setProperty("channel_cursor", channelCursor);
    Path temporary = file.resolveSibling(file.getFileName() + ".new");
    try (var writer = Files.newBufferedWriter(temporary)) {
      kept.store(writer, null);
    }
    Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE);
  }
}
