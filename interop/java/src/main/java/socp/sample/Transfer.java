package socp.sample;

import static socp.sample.Connection.soon;
import static socp.sample.Signing.require;

import com.google.protobuf.ByteString;
import io.grpc.stub.BlockingClientCall;
import java.io.FileOutputStream;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import socp.sample.Chunks.Receiver;
import socp.sample.Chunks.Source;
import socp.sample.Signing.User;
import socp.v1.File.CreateFileRequest;
import socp.v1.File.DownloadFileRequest;
import socp.v1.File.DownloadFileResponse;
import socp.v1.File.FileManifest;
import socp.v1.File.UploadBegin;
import socp.v1.File.UploadFileRequest;
import socp.v1.File.UploadFileResponse;

/** Brings files to the own home, and fetches them from there, as often as the connection breaks. */
final class Transfer {
  private final Connection connection;

  Transfer(Connection connection) {
    this.connection = connection;
  }

  /**
   * Uploads a file for a user, and gives what a message has to say of it: the file is at the own
   * home then, whole and on its disk.
   */
  FileManifest upload(User to, Path path) throws Exception {
    try (FileChannel from = FileChannel.open(path)) {
      Source source = new Source(from, path.getFileName().toString());
      long size = source.chunks.sealedBytes();
      CreateFileRequest room =
          CreateFileRequest.newBuilder()
              .setFileId(source.id)
              .setRecipient(to.name())
              .setRecipientHomeId(to.home())
              .setBytes(size)
              .build();
      long[] stored = {0};
      connection.persistently(
          token -> {
            // All of it, perhaps, if only the answer was lost.
            stored[0] = soon(connection.files(token)).createFile(room).getStoredBytes();
            stored[0] = upload(source, stored[0], token);
            require(stored[0] == size, "the server has not got all of the file");
            return null;
          },
          () -> stored[0]);
      return source.manifest(connection.me.home());
    }
  }

  private long upload(Source source, long offset, String token) throws Exception {
    BlockingClientCall<UploadFileRequest, UploadFileResponse> call =
        connection.files(token).uploadFile();
    try {
      UploadBegin begin =
          UploadBegin.newBuilder().setFileId(source.id).setOffset(offset).build();
      call.write(UploadFileRequest.newBuilder().setBegin(begin).build());
      // Waits while the connection takes no more; false once the server has answered.
      source.parts(offset, p -> call.write(UploadFileRequest.newBuilder().setPart(p).build()));
      call.halfClose();
      return call.read().getStoredBytes();
    } finally {
      call.cancel("done with this upload", null);
    }
  }

  /**
   * Fetches a file of {@code limit} bytes at most into a folder: under a temporary name, until all
   * of it is there, checked and on disk. Gives the path.
   */
  Path download(FileManifest manifest, Path folder, long limit) throws Exception {
    require(manifest.getBytes() <= limit, "the file is larger than wanted");
    Path temporary = folder.resolve("." + manifest.getFileId() + ".part");
    try (FileOutputStream to = new FileOutputStream(temporary.toFile())) {
      Receiver receiver = new Receiver(manifest, to);
      connection.persistently(
          token -> {
            if (!receiver.isWhole()) {
              download(manifest, receiver, token);
            }
            return null;
          },
          receiver::index);
      receiver.finish();
      to.getFD().sync();
      return Chunks.settle(temporary, folder, Chunks.safeName(manifest.getName()));
    } finally {
      Files.deleteIfExists(temporary);
    }
  }

  private void download(FileManifest manifest, Receiver receiver, String token) throws Exception {
    DownloadFileRequest request =
        DownloadFileRequest.newBuilder()
            .setFileId(manifest.getFileId())
            .setHomeId(manifest.getHomeId())
            .setOffset(receiver.begin())
            .build();
    BlockingClientCall<?, DownloadFileResponse> call = connection.files(token).downloadFile(request);
    try {
      for (DownloadFileResponse part = call.read(); part != null; part = call.read()) {
        receiver.take(part.getPart());
      }
    } finally {
      call.cancel("done with this download", null);
    }
  }

  /** What the message says to people whose programs know no files. */
  static String text(FileManifest manifest) {
    return "[file] " + Chunks.safeName(manifest.getName()) + ", " + manifest.getBytes() + " bytes";
  }

  /** An additional-data label and the header, as the manifest is encrypted under. */
  static ByteString additionalData(ByteString header) {
    return Signing.label("socp.v1.FileManifest").concat(header);
  }
}
