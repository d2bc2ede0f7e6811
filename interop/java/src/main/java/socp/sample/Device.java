package socp.sample;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Properties;

/** What a device keeps beside its key: an id of its own, and how far it has read the inbox. */
public final class Device {
  private final Path file;
  private final String id;
  private String cursor = "";

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
    keep(kept.getProperty("cursor", ""));
  }

  String id() {
    return id;
  }

  synchronized String cursor() {
    return cursor;
  }

  /**
   * Notes the last thing that was dealt with. A crash right before shows that once more; nothing is
   * missed.
   */
  synchronized void keep(String cursor) throws IOException {
    this.cursor = cursor;
    if (file == null) {
      return;
    }
    Properties kept = new Properties();
    kept.setProperty("device_id", id);
    kept.setProperty("cursor", cursor);
    Path temporary = file.resolveSibling(file.getFileName() + ".new");
    try (var writer = Files.newBufferedWriter(temporary)) {
      kept.store(writer, null);
    }
    Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE);
  }
}
