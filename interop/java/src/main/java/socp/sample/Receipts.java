package socp.sample;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import socp.sample.Sealing.Opened;
import socp.sample.Signing.User;
import socp.v1.Message.Receipt;
import socp.v1.Message.ReceiptKind;

/** Receipts: given to those who ask for them, and counted where one asked for them oneself. */
final class Receipts {
  /** Sends one. */
  interface Way {
    void send(User to, Receipt receipt) throws Exception;
  }

  private static final long GATHER_MS = 500; // a burst is answered with few
  private static final int IDS_MAX = 100; // in one
  private static final int ASKED_MAX = 10_000;

  private final ReceiptKind kind;
  private final Way way;
  private final ScheduledExecutorService later =
      Executors.newSingleThreadScheduledExecutor(Receipts::thread);
  private Map<User, List<String>> gathered = new HashMap<>();
  // By the id of an own message its recipient; the newest.
  private final Map<String, User> asked =
      Collections.synchronizedMap(
          new LinkedHashMap<>() {
            @Override
            protected boolean removeEldestEntry(Map.Entry<String, User> eldest) {
              return size() > ASKED_MAX;
            }
          });

  /** {@code RECEIPT_KIND_UNSPECIFIED} gives none. */
  Receipts(ReceiptKind kind, Way way) {
    this.kind = kind;
    this.way = way;
  }

  private static Thread thread(Runnable work) {
    Thread thread = new Thread(work, "socp-receipts");
    thread.setDaemon(true);
    return thread;
  }

  /** Who gives receipts asks for them. */
  boolean wanted() {
    return kind != ReceiptKind.RECEIPT_KIND_UNSPECIFIED;
  }

  void ask(String id, User to) {
    asked.put(id, to);
  }

  /**
   * Which of the own messages a receipt speaks of: it is the word of its sender on messages to them.
   */
  List<String> answered(User sender, Receipt receipt) {
    return receipt.getMessageIdsList().stream().filter(id -> sender.equals(asked.get(id))).toList();
  }

  /** Of a message that was told of, if it asks for one. */
  synchronized void give(Opened message) {
    if (!wanted() || !message.wantsReceipts()) {
      return;
    }
    if (gathered.isEmpty()) {
      later.schedule(this::giveAll, GATHER_MS, TimeUnit.MILLISECONDS);
    }
    gathered.computeIfAbsent(message.sender(), user -> new ArrayList<>()).add(message.id());
  }

  private synchronized Map<User, List<String>> take() {
    Map<User, List<String>> taken = gathered;
    gathered = new HashMap<>();
    return taken;
  }

  private void giveAll() {
    take()
        .forEach(
            (user, ids) -> {
              for (int at = 0; at < ids.size(); at += IDS_MAX) {
                List<String> some = ids.subList(at, Math.min(at + IDS_MAX, ids.size()));
                try {
                  way.send(user, Receipt.newBuilder().setKind(kind).addAllMessageIds(some).build());
                } catch (Exception e) {
                  // One that is not given says nothing.
                }
              }
            });
  }
}
