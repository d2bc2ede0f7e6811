package socp.sample;

import static socp.sample.Signing.hex;
import static socp.sample.Signing.label;
import static socp.sample.Signing.random;
import static socp.sample.Signing.require;

import com.google.protobuf.ByteString;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import socp.v1.File.FileManifest;

/**
 * The chunks of one file: which one it is, and whether it is the last, stands in the nonce. However
 * large a file is, a few of them are in memory. Without network; {@link Transfer} has that.
 */
final class Chunks {
  static final int CHUNK = 65_536;
  static final int TAG = 16;
  static final int SEALED_CHUNK = CHUNK + TAG;
  private static final int AT_ONCE = 4; // in one message of an upload: 1 MiB is its limit
  private static final int NAME_BYTES = 200;
  private static final ByteString LABEL = label("socp.v1.FileChunk");
  // Control characters, and marks that change the direction of a text.
  private static final String HOSTILE =
      "[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]";

  private final SecretKeySpec key;
  final long bytes;
  final long count;

  Chunks(ByteString key, long bytes) {
    this.key = new SecretKeySpec(key.toByteArray(), "AES");
    this.bytes = bytes;
    this.count = Math.max(1, (bytes + CHUNK - 1) / CHUNK); // an empty file is one empty chunk
  }

  long sealedBytes() {
    return bytes + count * TAG;
  }

  /** Bytes of a chunk before encryption. */
  int size(long index) {
    return (int) Math.min(CHUNK, bytes - index * CHUNK);
  }

  private byte[] crypt(int mode, long index, byte[] input, int length)
      throws GeneralSecurityException {
    byte[] nonce = new byte[12];
    ByteBuffer.wrap(nonce).putInt(7, (int) index);
    nonce[11] = (byte) (index + 1 == count ? 1 : 0);
    Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
    cipher.init(mode, key, new GCMParameterSpec(8 * TAG, nonce));
    cipher.updateAAD(LABEL.toByteArray());
    return cipher.doFinal(input, 0, length);
  }

  byte[] seal(long index, byte[] plain) throws GeneralSecurityException {
    return crypt(Cipher.ENCRYPT_MODE, index, plain, plain.length);
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e); // every JDK has it
    }
  }

  /** Opens what comes of a file, in parts of any size. */
  static final class Receiver {
    private final FileManifest manifest;
    private final Chunks chunks;
    private final OutputStream to;
    private final byte[] chunk = new byte[SEALED_CHUNK];
    private int here; // bytes of the chunk that is next
    private long index; // which one that is
    private final MessageDigest hash = sha256();

    Receiver(FileManifest manifest, OutputStream to) {
      this.manifest = manifest;
      this.chunks = new Chunks(manifest.getKey(), manifest.getBytes());
      this.to = to;
    }

    long index() {
      return index;
    }

    boolean isWhole() {
      return index == chunks.count;
    }

    /** Where to go on after a break: with the first chunk that was not opened. */
    long begin() {
      here = 0;
      return Math.min(index * SEALED_CHUNK, chunks.sealedBytes());
    }

    void take(ByteString part) throws GeneralSecurityException, IOException {
      for (int at = 0; at < part.size(); ) {
        require(!isWhole(), "the file is longer than it should be");
        int size = chunks.size(index) + TAG;
        int now = Math.min(size - here, part.size() - at);
        part.copyTo(chunk, at, here, now);
        here += now;
        at += now;
        if (here == size) {
          hash.update(chunk, 0, size);
          to.write(chunks.crypt(Cipher.DECRYPT_MODE, index, chunk, size));
          here = 0;
          index++;
        }
      }
    }

    void finish() throws GeneralSecurityException {
      require(isWhole() && here == 0, "the file is shorter than it should be");
      ByteString found = ByteString.copyFrom(hash.digest());
      require(found.equals(manifest.getCiphertextSha256()), "the file has another hash");
    }
  }

  /** Takes what is to be uploaded; false ends it. */
  interface Parts {
    boolean take(ByteString part) throws Exception;
  }

  /**
   * A file that is sent, under a key of its own. It is encrypted as it is read, and again where a
   * part of it is sent again: "never encrypt a chunk twice with other content under one key".
   */
  static final class Source {
    final String id = hex(random(16));
    final String name;
    final Chunks chunks;
    private final FileChannel from;
    private final ByteString key = random(32);
    private final List<ByteString> tags = new ArrayList<>(); // of all chunks so far
    private final MessageDigest hash = sha256();

    Source(FileChannel from, String name) throws IOException {
      this.from = from;
      this.name = name;
      this.chunks = new Chunks(key, from.size());
    }

    private ByteString seal(int index) throws GeneralSecurityException, IOException {
      ByteBuffer plain = ByteBuffer.allocate(chunks.size(index));
      while (plain.hasRemaining()) {
        int read = from.read(plain, (long) index * CHUNK + plain.position());
        require(read > 0, "the file changed while it was sent");
      }
      byte[] bytes = chunks.seal(index, plain.array());
      ByteString sealed = ByteString.copyFrom(bytes);
      // A copy: a part of the chunk would keep all of it.
      ByteString tag = ByteString.copyFrom(bytes, bytes.length - TAG, TAG);
      if (index < tags.size()) {
        require(tag.equals(tags.get(index)), "the file changed while it was sent");
      } else {
        tags.add(tag);
        hash.update(bytes);
      }
      return sealed;
    }

    /** Gives what is uploaded, from an offset to the end. */
    void parts(long offset, Parts parts) throws Exception {
      int skip = (int) (offset % SEALED_CHUNK);
      for (long first = offset / SEALED_CHUNK; first < chunks.count; first += AT_ONCE) {
        require(first <= tags.size(), "the server has more than was sent");
        ByteString part = ByteString.EMPTY;
        for (long index = first; index < Math.min(first + AT_ONCE, chunks.count); index++) {
          part = part.concat(seal((int) index));
        }
        if (!parts.take(part.substring(skip))) {
          return;
        }
        skip = 0;
      }
    }

    FileManifest manifest(String home) throws GeneralSecurityException {
      require(tags.size() == chunks.count, "not all was sent");
      try {
        return FileManifest.newBuilder()
            .setFileId(id)
            .setHomeId(home)
            .setName(name)
            .setBytes(chunks.bytes)
            .setChunkBytes(CHUNK)
            .setKey(key)
            .setCiphertextSha256(
                ByteString.copyFrom(((MessageDigest) hash.clone()).digest()))
            .build();
      } catch (CloneNotSupportedException e) {
        throw new IllegalStateException(e); // the JDK's can be cloned
      }
    }
  }

  // Names.

  /**
   * A plain file name out of what somebody else calls a file: it leads nowhere, hides nothing and
   * steers no terminal.
   */
  static String safeName(String name) {
    String last = name.substring(Math.max(name.lastIndexOf('/'), name.lastIndexOf('\\')) + 1);
    String plain = last.replaceAll(HOSTILE, "").strip().replaceAll("[. ]+$", "");
    if (plain.startsWith(".") || plain.startsWith("-") || plain.startsWith("~")) {
      plain = "_" + plain;
    }
    int dot = plain.lastIndexOf('.');
    String extension = dot > 0 && plain.length() - dot <= 16 ? plain.substring(dot) : "";
    String stem = plain.substring(0, plain.length() - extension.length());
    while ((stem + extension).getBytes(StandardCharsets.UTF_8).length > NAME_BYTES) {
      stem = stem.substring(0, stem.offsetByCodePoints(stem.length(), -1));
    }
    return plain.isEmpty() ? "file" : stem + extension;
  }

  /** Gives a whole file its name, never in place of another: a link fails where a move replaces. */
  static Path settle(Path temporary, Path folder, String name) throws IOException {
    int dot = name.lastIndexOf('.');
    String extension = dot > 0 ? name.substring(dot) : "";
    String stem = name.substring(0, name.length() - extension.length());
    for (int n = 0; n < 10_000; n++) {
      Path path = folder.resolve(n == 0 ? name : stem + " (" + n + ")" + extension);
      try {
        Files.createLink(path, temporary);
        Files.delete(temporary);
        return path;
      } catch (FileAlreadyExistsException e) {
        // The next one.
      }
    }
    throw new FileAlreadyExistsException(name);
  }
}
