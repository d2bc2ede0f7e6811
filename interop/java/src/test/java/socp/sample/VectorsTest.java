package socp.sample;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.PublicKey;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;
import socp.federation.v1.Federation.Advert;
import socp.federation.v1.Federation.BatchStatement;
import socp.federation.v1.Federation.Removal;
import socp.federation.v1.Federation.SignedBatch;
import socp.sample.Chunks.Receiver;
import socp.sample.Chunks.Source;
import socp.sample.Sealing.Opened;
import socp.sample.Signing.Key;
import socp.sample.Signing.User;
import socp.v1.Account.GetServerInfoResponse;
import socp.v1.Directory.DirectoryEntry;
import socp.v1.File.FileManifest;
import socp.v1.Message.Outcome;
import socp.v1.Message.PostHeader;
import socp.v1.Message.PostStatement;
import socp.v1.Message.Receipt;
import socp.v1.Message.ReceiptKind;
import socp.v1.Message.ReceivedPost;
import socp.v1.Message.SealedMessage;
import socp.v1.Message.SealedPost;
import socp.v1.Message.SignedOutcome;
import socp.v1.Statement.LoginStatement;
import socp.v1.Statement.MoveStatement;
import socp.v1.Statement.SignedKeyStatement;
import socp.v1.Statement.SignedMove;

/** Reads the golden vectors: accepts what is valid with the values named, refuses the rest. */
class VectorsTest {
  private static final Path VECTORS = Path.of("../../proto/tests/vectors");
  private static final JsonObject KEYS = read("keys.json");
  // All files of the folder: one that is new has to be read, too.
  private static final Set<String> FILES =
      Set.of(
          "batch.json",
          "channel_post.json",
          "digest.json",
          "envelope.json",
          "file.json",
          "key_statement.json",
          "keys.json",
          "login.json",
          "move.json",
          "outcome.json",
          "receipt.json",
          "server_info.json");

  interface Check {
    void of(JsonObject valid) throws Exception;
  }

  private static JsonObject read(String file) {
    try {
      return JsonParser.parseString(Files.readString(VECTORS.resolve(file))).getAsJsonObject();
    } catch (IOException e) {
      throw new java.io.UncheckedIOException(e);
    }
  }

  /** One test for each case: the check has to throw exactly where the case is not valid. */
  private static Stream<DynamicTest> each(String file, Check check) {
    List<JsonElement> cases = read(file).getAsJsonArray("cases").asList();
    for (boolean valid : List.of(true, false)) {
      assertTrue(
          cases.stream().anyMatch(c -> c.getAsJsonObject().get("valid").getAsBoolean() == valid),
          file + " has not cases of both kinds");
    }
    assertTrue(FILES.contains(file));
    return cases.stream()
        .map(JsonElement::getAsJsonObject)
        .map(
            c ->
                DynamicTest.dynamicTest(
                    text(c, "case"),
                    () -> {
                      if (c.get("valid").getAsBoolean()) {
                        check.of(c);
                      } else {
                        assertRefused(() -> check.of(c));
                      }
                    }));
  }

  /** Neither an assertion that fails nor a fault of the program passes for a refusal. */
  private static void assertRefused(Executable check) {
    Throwable why = assertThrows(Throwable.class, check);
    boolean refused = why instanceof GeneralSecurityException || why instanceof IOException;
    assertTrue(refused, () -> "not refused, but: " + why);
  }

  private static String text(JsonObject from, String name) {
    return from.get(name).getAsString();
  }

  private static ByteString bytes(JsonObject from, String name) {
    return ByteString.fromHex(text(from, name));
  }

  private static User user(String name) {
    JsonObject home =
        KEYS.getAsJsonObject("homes")
            .getAsJsonObject(text(KEYS.getAsJsonObject("users").getAsJsonObject(name), "home"));
    return new User(name, text(home, "server_id"));
  }

  private static KeyPair pair(String name) throws Exception {
    JsonObject user = KEYS.getAsJsonObject("users").getAsJsonObject(name);
    byte[] pkcs8 = bytes(user, "private_key_pkcs8").toByteArray();
    return new KeyPair(
        Signing.userKey(bytes(user, "public_key")),
        KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(pkcs8)));
  }

  private static Inbox inbox(String name) throws Exception {
    return new Inbox(
        user(name),
        pair(name),
        (sender, fingerprint) -> {
          Signing.require(KEYS.getAsJsonObject("users").has(sender.name()), "nobody known");
          Signing.require(user(sender.name()).equals(sender), "nobody known");
          return key(sender.name());
        },
        wanted -> ByteString.EMPTY);
  }

  private static Key key(String name) throws Exception {
    KeyPair pair = pair(name);
    return new Key(1, Signing.fingerprint(pair), pair.getPublic(), ByteString.EMPTY);
  }

  @Test
  void files() throws Exception {
    try (Stream<Path> there = Files.list(VECTORS)) {
      Stream<String> names = there.map(path -> path.getFileName().toString());
      assertEquals(FILES, names.filter(n -> n.endsWith(".json")).collect(Collectors.toSet()));
    }
  }

  @TestFactory
  Stream<DynamicTest> keys() {
    JsonObject homes = KEYS.getAsJsonObject("homes");
    JsonObject users = KEYS.getAsJsonObject("users");
    assertTrue(homes.size() > 0 && users.size() > 0);
    return Stream.concat(
        homes.keySet().stream()
            .map(homes::getAsJsonObject)
            .map(
                home ->
                    DynamicTest.dynamicTest(
                        text(home, "server_id"),
                        () ->
                            Signing.serverKey(
                                bytes(home, "identity_key"), text(home, "server_id")))),
        users.keySet().stream()
            .map(
                name ->
                    DynamicTest.dynamicTest(
                        name,
                        () -> {
                          ByteString expected = bytes(users.getAsJsonObject(name), "key_sha256");
                          assertEquals(expected, key(name).fingerprint());
                          ByteString text = ByteString.copyFromUtf8("text");
                          ByteString signature =
                              Signing.sign(pair(name).getPrivate(), "label", text);
                          Signing.verify(pair(name).getPublic(), "label", text, signature);
                        })));
  }

  @TestFactory
  Stream<DynamicTest> keyStatement() {
    return each(
        "key_statement.json",
        c -> {
          User user = new User(text(c, "user"), text(c, "home_id"));
          ByteString hash = bytes(c, "key_statement_sha256");
          SignedKeyStatement signed =
              SignedKeyStatement.parseFrom(bytes(c, "signed_key_statement"));
          ByteString previous = bytes(c, "previous");
          Key key;
          if (previous.isEmpty()) {
            key = Signing.readStatement(signed, user, hash);
          } else {
            SignedKeyStatement first = SignedKeyStatement.parseFrom(previous);
            Key before = Signing.readStatement(first, user, null);
            key = Signing.readNext(before, signed, user, hash);
          }
          assertEquals(text(c, "number"), Long.toUnsignedString(key.number()));
          assertEquals(text(c, "key_sha256"), Signing.hex(key.fingerprint()));
        });
  }

  @TestFactory
  Stream<DynamicTest> login() {
    return each(
        "login.json",
        c -> {
          PublicKey key = Signing.userKey(bytes(c, "public_key"));
          ByteString statement = bytes(c, "statement");
          Signing.verify(key, "socp.v1.LoginStatement", statement, bytes(c, "signature"));
          LoginStatement said = LoginStatement.parseFrom(statement);
          Signing.require(
              said.getServerId().equals(text(c, "server_id"))
                  && said.getUser().equals(text(c, "user"))
                  && said.getNonce().equals(bytes(c, "nonce")),
              "another login");
        });
  }

  @TestFactory
  Stream<DynamicTest> move() {
    return each(
        "move.json",
        c -> {
          User old = new User(text(c, "user"), text(c, "home_id"));
          SignedMove signed = SignedMove.parseFrom(bytes(c, "signed_move"));
          MoveStatement said = MoveStatement.parseFrom(signed.getStatement());
          SignedKeyStatement shown = SignedKeyStatement.parseFrom(bytes(c, "key_statement"));
          Key before = Signing.readStatement(shown, old, said.getKeyStatementSha256());
          Signing.verify(
              before.rsa(), "socp.v1.MoveStatement", signed.getStatement(), signed.getSignature());
          Signing.require(
              said.getUser().equals(old.name())
                  && said.getHomeId().equals(old.home())
                  && !said.getNewHomeId().equals(old.home()),
              "another move");
          User found = new User(said.getNewUser(), said.getNewHomeId());
          SignedKeyStatement claimed = SignedKeyStatement.parseFrom(bytes(c, "new_key_statement"));
          Key after = Signing.readStatement(claimed, found, null);
          Signing.require(
              after.fingerprint().equals(before.fingerprint()), "another key at the new address");
          assertEquals(text(c, "new_user"), said.getNewUser());
          assertEquals(text(c, "new_home_id"), said.getNewHomeId());
          assertEquals(text(c, "time_unix_ms"), Long.toString(said.getTimeUnixMs()));
        });
  }

  @TestFactory
  Stream<DynamicTest> serverInfo() {
    return each(
        "server_info.json",
        c -> {
          GetServerInfoResponse info = GetServerInfoResponse.parseFrom(bytes(c, "server_info"));
          Signing.checkServer(info, text(c, "pinned_server_id"), bytes(c, "certificate_key"));
          assertEquals(text(c, "name"), info.getName());
        });
  }

  @TestFactory
  Stream<DynamicTest> outcome() {
    return each(
        "outcome.json",
        c -> {
          SignedOutcome signed = SignedOutcome.parseFrom(bytes(c, "signed_outcome"));
          Outcome outcome =
              Sealing.readOutcome(
                  signed,
                  text(c, "home_id"),
                  text(c, "own_home_id"),
                  bytes(c, "statement_sha256"));
          assertEquals(text(c, "kind"), outcome.getKind().name());
          assertEquals(text(c, "reason"), outcome.getReason());
          assertEquals(c.get("recipients").getAsInt(), outcome.getRecipients());
        });
  }

  @TestFactory
  Stream<DynamicTest> envelope() {
    return each(
        "envelope.json",
        c -> {
          SealedMessage sealed = SealedMessage.parseFrom(bytes(c, "sealed_message"));
          Inbox inbox = inbox(text(c, "recipient"));
          compare(c, inbox.open(sealed));
          assertEquals(null, inbox.open(sealed), "a repeat is dropped");
        });
  }

  /** What a home gives: as it stands there, or a part of a file whose byte p is p modulo 251. */
  private static ByteString stored(JsonObject piece) throws GeneralSecurityException {
    if (piece.has("hex")) {
      return bytes(piece, "hex");
    }
    Chunks chunks = new Chunks(bytes(piece, "key"), piece.get("bytes").getAsLong());
    ByteString sealed = ByteString.EMPTY;
    for (int index = 0; index < chunks.count; index++) {
      byte[] plain = new byte[chunks.size(index)];
      for (int i = 0; i < plain.length; i++) {
        plain[i] = (byte) ((index * Chunks.CHUNK + i) % 251);
      }
      sealed = sealed.concat(ByteString.copyFrom(chunks.seal(index, plain)));
    }
    return sealed.substring(piece.get("from").getAsInt(), piece.get("to").getAsInt());
  }

  @TestFactory
  Stream<DynamicTest> file() {
    return each(
        "file.json",
        c -> {
          SealedMessage sealed = SealedMessage.parseFrom(bytes(c, "sealed_message"));
          Opened opened = inbox(text(c, "recipient")).open(sealed);
          FileManifest file = opened.file();
          ByteArrayOutputStream content = new ByteArrayOutputStream();
          Receiver receiver = new Receiver(file, content);
          ByteString all = ByteString.EMPTY;
          for (JsonElement piece : c.getAsJsonArray("stored")) {
            all = all.concat(stored(piece.getAsJsonObject()));
          }
          for (int at = 0; at < all.size(); at += 10_007) {
            receiver.take(all.substring(at, Math.min(at + 10_007, all.size())));
          }
          receiver.finish();
          assertEquals(text(c, "text"), opened.text());
          assertEquals(text(c, "file_id"), file.getFileId());
          assertEquals(text(c, "home_id"), file.getHomeId());
          assertEquals(text(c, "name"), file.getName());
          assertEquals(c.get("bytes").getAsLong(), file.getBytes());
          assertEquals(bytes(c, "key"), file.getKey());
          assertEquals(bytes(c, "ciphertext_sha256"), file.getCiphertextSha256());
          assertEquals(text(c, "saved_as"), Chunks.safeName(file.getName()));
          ByteString hash = Signing.sha256(ByteString.copyFrom(content.toByteArray()));
          assertEquals(bytes(c, "content_sha256"), hash);
        });
  }

  @TestFactory
  Stream<DynamicTest> receipt() {
    return each(
        "receipt.json",
        c -> {
          SealedMessage sealed = SealedMessage.parseFrom(bytes(c, "sealed_message"));
          Receipt receipt = inbox(text(c, "recipient")).open(sealed).receipt();
          assertEquals(text(c, "kind"), receipt.getKind().name());
          assertEquals(names(c, "message_ids"), List.copyOf(receipt.getMessageIdsList()));
        });
  }

  @Test
  void anOwnFileIsReceivedAsItWasSentAndNeverSentWithTwoContents(@TempDir Path folder)
      throws Exception {
    byte[] plain = new byte[300_000];
    Path path = Files.write(folder.resolve("a.bin"), plain);
    try (FileChannel from = FileChannel.open(path)) {
      Source source = new Source(from, "a.bin");
      ByteString whole = upload(source, 0);
      assertEquals(source.chunks.sealedBytes(), whole.size());
      int chunk = Chunks.SEALED_CHUNK;
      for (int at : new int[] {0, 1, chunk, chunk + 1, whole.size() - 1, whole.size()}) {
        assertEquals(whole.substring(at), upload(source, at));
      }
      FileManifest file = source.manifest(user("alice").home());
      String label = "socp.v1.MessageStatement";
      SealedMessage sealed =
          Sealing.seal(
              user("alice"),
              pair("alice"),
              user("bob"),
              key("bob"),
              new Sealing.Content("a file", file, null, false),
              label);
      assertEquals(file, inbox("bob").open(sealed).file());
      ByteArrayOutputStream content = new ByteArrayOutputStream();
      Receiver receiver = new Receiver(file, content);
      receiver.take(whole.substring(0, 100_000));
      receiver.take(whole.substring((int) receiver.begin()));
      receiver.finish();
      assertArrayEquals(plain, content.toByteArray());
      plain[200_000]++;
      Files.write(path, plain);
      assertThrows(GeneralSecurityException.class, () -> upload(source, 0));
    }
  }

  private static ByteString upload(Source source, long offset) throws Exception {
    ByteString.Output sent = ByteString.newOutput();
    source.parts(
        offset,
        part -> {
          part.writeTo(sent);
          return true;
        });
    return sent.toByteString();
  }

  @Test
  void aLongNameIsCutAndNothingIsOverwritten(@TempDir Path folder) throws Exception {
    String name = Chunks.safeName("ü".repeat(300) + ".pdf");
    assertEquals(200, ByteString.copyFromUtf8(name).size());
    for (String saved : List.of("x.txt", "x (1).txt")) {
      Path part = Files.writeString(folder.resolve("part"), saved);
      assertEquals(folder.resolve(saved), Chunks.settle(part, folder, "x.txt"));
      assertEquals(saved, Files.readString(folder.resolve(saved)));
    }
  }

  @TestFactory
  Stream<DynamicTest> channelPost() {
    return each(
        "channel_post.json",
        c -> {
          SealedPost sealed = SealedPost.parseFrom(bytes(c, "sealed_post"));
          Inbox inbox = inbox(text(c, "member"));
          if (!text(c, "known_channel_key").isEmpty()) {
            PostStatement said = PostStatement.parseFrom(sealed.getStatement());
            PostHeader header = PostHeader.parseFrom(said.getHeader());
            List<Object> which = List.of(header.getSenderKeySha256(), bytes(c, "known_key_id"));
            User sender = new User(header.getSender(), header.getSenderHomeId());
            inbox.kept(sender).put(which, bytes(c, "known_channel_key"));
          }
          ReceivedPost received =
              ReceivedPost.newBuilder()
                  .setPost(sealed)
                  .setWrappedChannelKey(bytes(c, "wrapped_channel_key"))
                  .build();
          Opened opened = inbox.open(received);
          compare(c, opened);
          assertEquals(bytes(c, "key_id"), opened.post().getKeyId());
          assertEquals(c.get("counter").getAsLong(), opened.post().getCounter());
          assertEquals(null, inbox.open(received), "a repeat is dropped");
        });
  }

  private static void compare(JsonObject c, Opened opened) {
    assertNotNull(opened);
    assertEquals(user(text(c, "sender")), opened.sender());
    assertEquals(text(c, "text"), opened.text());
    assertEquals(text(c, "message_id"), opened.id());
    assertEquals(c.get("time_unix_ms").getAsLong(), opened.timeUnixMs());
    assertEquals(bytes(c, "statement_sha256"), opened.hash());
  }

  @TestFactory
  Stream<DynamicTest> digest() {
    return each(
        "digest.json",
        c ->
            Signing.require(
                Signing.digest(entries(c, "entries")).equals(bytes(c, "digest")), "another"));
  }

  private static List<DirectoryEntry> entries(JsonObject from, String name) {
    List<DirectoryEntry> entries = new ArrayList<>();
    for (JsonElement element : from.getAsJsonArray(name)) {
      JsonObject entry = element.getAsJsonObject();
      entries.add(
          DirectoryEntry.newBuilder()
              .setName(text(entry, "name"))
              .setServerId(text(entry, "server_id"))
              .setDisplayName(text(entry, "display_name"))
              .setStatus(text(entry, "status"))
              .setKeyStatementSha256(bytes(entry, "key_statement_sha256"))
              .setEpoch(Long.parseUnsignedLong(text(entry, "epoch")))
              .setOnlineSince(Long.parseUnsignedLong(text(entry, "online_since")))
              .setSessions(Integer.parseUnsignedInt(text(entry, "sessions")))
              .build());
    }
    return entries;
  }

  /** No client meets a batch, so what servers check of one stands here. */
  @TestFactory
  Stream<DynamicTest> batch() {
    return each(
        "batch.json",
        c -> {
          SignedBatch signed = SignedBatch.parseFrom(bytes(c, "signed_batch"));
          BatchStatement said = BatchStatement.parseFrom(signed.getStatement());
          ByteString der =
              ByteString.fromHex("302a300506032b6570032100").concat(said.getOriginKey());
          Signing.verify(
              Signing.serverKey(der, text(c, "origin")),
              "socp.federation.v1.BatchStatement",
              signed.getStatement(),
              signed.getSignature());
          int adverts = said.getAdvertsCount();
          int removals = said.getRemovalsCount();
          long number = said.getNumber();
          Signing.require(number != 0, "a number of zero");
          Signing.require((adverts == 0) != (removals == 0), "not one of both");
          Signing.require(adverts + removals <= 256, "too many");
          Signing.require(said.getStartId().size() == 16, "wrong form");
          for (Advert advert : said.getAdvertsList()) {
            long since = advert.getOnlineSince();
            Signing.require(
                since != 0 && Long.compareUnsigned(since, number) <= 0 && advert.getSessions() != 0,
                "an advert from another time");
          }
          if (c.has("entries_after")) {
            ByteString digest = Signing.digest(entries(c, "entries_after"));
            Signing.require(digest.equals(said.getDigest()), "not the digest of its entries");
          }
          assertEquals(text(c, "epoch"), Long.toUnsignedString(said.getEpoch()));
          assertEquals(text(c, "number"), Long.toUnsignedString(number));
          assertEquals(bytes(c, "start_id"), said.getStartId());
          assertEquals(
              names(c, "adverts"), said.getAdvertsList().stream().map(Advert::getUser).toList());
          assertEquals(
              names(c, "removals"), said.getRemovalsList().stream().map(Removal::getUser).toList());
          assertEquals(bytes(c, "digest"), said.getDigest());
        });
  }

  private static List<String> names(JsonObject from, String name) {
    return from.getAsJsonArray(name).asList().stream().map(JsonElement::getAsString).toList();
  }

  /** The program's own seals open again, and nobody else's key opens them. */
  @TestFactory
  Stream<DynamicTest> sealing() throws Exception {
    User alice = user("alice");
    User bob = user("bob");
    Sealing.Content hi = Sealing.Content.of("hi");
    SealedMessage message =
        Sealing.seal(alice, pair("alice"), bob, key("bob"), hi, "socp.v1.MessageStatement");
    SealedMessage mislabelled =
        Sealing.seal(alice, pair("alice"), bob, key("bob"), hi, "socp.v1.PostStatement");
    Sealing.ChannelKey channel = new Sealing.ChannelKey();
    ReceivedPost first =
        ReceivedPost.newBuilder()
            .setPost(channel.seal(alice, pair("alice"), "to all"))
            .setWrappedChannelKey(channel.wrapFor(bob, key("bob")).getWrappedKey())
            .build();
    ReceivedPost second =
        ReceivedPost.newBuilder().setPost(channel.seal(alice, pair("alice"), "again")).build();
    Receipt read =
        Receipt.newBuilder()
            .setKind(ReceiptKind.RECEIPT_KIND_READ)
            .addMessageIds(Sealing.newId())
            .build();
    SealedMessage receipt =
        Sealing.seal(
            alice,
            pair("alice"),
            bob,
            key("bob"),
            Sealing.Content.of(read),
            "socp.v1.MessageStatement");
    return Stream.of(
        DynamicTest.dynamicTest(
            "a receipt opens", () -> assertEquals(read, inbox("bob").open(receipt).receipt())),
        DynamicTest.dynamicTest(
            "a message", () -> assertEquals("hi", inbox("bob").open(message).text())),
        DynamicTest.dynamicTest(
            "to another", () -> assertRefused(() -> inbox("mallory").open(message))),
        DynamicTest.dynamicTest(
            "under the label of a post", () -> assertRefused(() -> inbox("bob").open(mislabelled))),
        DynamicTest.dynamicTest(
            "posts",
            () -> {
              Inbox inbox = inbox("bob");
              assertRefused(() -> inbox.open(second));
              assertEquals("to all", inbox.open(first).text());
              assertEquals("again", inbox.open(second).text());
            }),
        DynamicTest.dynamicTest(
            "a statement",
            () -> {
              SignedKeyStatement mine = Signing.firstStatement(alice, pair("alice"));
              assertEquals(1, Signing.readStatement(mine, alice, null).number());
            }));
  }
}
